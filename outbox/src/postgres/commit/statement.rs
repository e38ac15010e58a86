//! A folded batch as one statement: everything, or a division by zero.
//!
//! Each part is there only if the batch has something for it, so that the usual batches have short plans; the counts that
//! say whether a gate was taken or a saga was stale are compared in the end. All arrays are arguments, so a shape is
//! prepared once per connection.

use super::{
    super::{
        open::Inner,
        sql::{NOW, Sql, Texts, micros, probe},
        text::escape,
    },
    chain::{Chain, End, Start},
    deliveries,
    enqueue::{self, Queued},
    gates,
    plan::Plan,
    sends,
};
use sagabus_core::{NodeId, OutboxId, Owner, Result, sabotage};

/// A statement in the making.
pub(super) struct Draft<'a> {
    pub(super) inner: &'a Inner,
    pub(super) owner: &'a Owner,
    /// Ids that a queue has taken before are skipped; otherwise they fail the statement.
    pub(super) repeats: bool,
    pub(super) sql: Sql,
    /// `name as (…)`
    pub(super) parts: Vec<String>,
    /// What must be true.
    pub(super) checks: Vec<String>,
}

impl<'a> Draft<'a> {
    fn new(inner: &'a Inner, owner: &'a Owner, repeats: bool) -> Self {
        Self { inner, owner, repeats, sql: Sql::default(), parts: Vec::new(), checks: Vec::new() }
    }

    fn finish(mut self, ids: &str, behind: &str) -> Option<Sql> {
        if self.parts.is_empty() {
            return None;
        }
        let check = match self.checks.as_slice() {
            [] => "1".to_owned(),
            checks => format!("1/(case when {} then 1 else 0 end)", checks.join(" and ")),
        };
        self.sql.text = format!("with {} select {check},{ids},{behind}", self.parts.join(","));
        Some(self.sql)
    }

    /// A part that has to touch exactly so many rows.
    pub(super) fn counted(&mut self, name: &str, part: String, count: usize) {
        let count = self.sql.bind(i64::try_from(count).unwrap_or(i64::MAX));
        self.checks.push(format!("(select count(*) from {name})={count}"));
        self.parts.push(format!("{name} as ({part})"));
    }

    pub(super) fn part(&mut self, name: &str, part: String) {
        self.parts.push(format!("{name} as ({part})"));
    }

    pub(super) fn texts<'t>(&mut self, texts: impl Iterator<Item = &'t str>) -> String {
        self.sql.bind(texts.map(escape).collect::<Texts<'t>>())
    }

    pub(super) fn maybe_texts<'t>(&mut self, texts: impl Iterator<Item = Option<&'t str>>) -> String {
        self.sql.bind(texts.map(|text| text.map(escape)).collect::<Vec<_>>())
    }

    pub(super) fn table(&self, name: &str) -> String {
        format!("{}{name}", self.inner.s)
    }
}

/// How a plan is written down.
#[derive(Clone, Copy)]
pub(super) struct Mode {
    pub(super) joined: bool,
    /// See [`Draft::repeats`].
    pub(super) repeats: bool,
}

/// The statement for a plan, and outbox rows that are done with. It answers (1, ids of outbox rows, order keys behind).
pub(super) fn draft(
    inner: &Inner,
    owner: &Owner,
    mode: Mode,
    plan: &Plan<'_>,
    sent: &[OutboxId],
) -> Result<Option<Sql>> {
    let mut draft = Draft::new(inner, owner, mode.repeats);
    gates::write(&mut draft, plan);
    sagas(&mut draft, &plan.chains);
    aliases(&mut draft, plan);
    deliveries::write(&mut draft, plan)?;
    let (ids, behind) = sends::write(&mut draft, mode.joined, &plan.sends)?;
    if !sent.is_empty() {
        let sent = draft.sql.bind(sent.iter().map(|id| id.0).collect::<Vec<_>>());
        let outbox = draft.table("outbox");
        draft.part("sent", format!("delete from {outbox} where id=any({sent}::bigint[])"));
    }
    Ok(draft.finish(&ids, &behind))
}

/// The statement that adds messages to queues, and nothing else.
pub(super) fn enqueue(inner: &Inner, rows: &[Queued<'_>], repeats: bool) -> Result<Option<Sql>> {
    let nobody = Owner { endpoint: "".into(), node: NodeId(uuid::Uuid::nil()) };
    let mut draft = Draft::new(inner, &nobody, repeats);
    enqueue::write(&mut draft, rows)?;
    Ok(draft.finish("null", "null"))
}

fn sagas(draft: &mut Draft<'_>, chains: &[Chain<'_>]) {
    let of = |start: fn(&Start) -> bool, end: fn(&End<'_>) -> bool| -> Vec<&Chain<'_>> {
        chains.iter().filter(|chain| start(&chain.start) && end(&chain.end)).collect()
    };
    let absent = |start: &Start| *start == Start::Absent;
    let at = |start: &Start| *start != Start::Absent;
    update(draft, &of(at, |end| *end == End::Live));
    put(draft, &of(absent, |end| *end != End::Gone));
    delete(draft, &of(at, |end| *end == End::Gone));
    keep(draft, &of(at, |end| matches!(end, End::Kept(..))));
    pass(draft, &of(absent, |end| *end == End::Gone));
}

/// Kinds and keys as two arguments.
fn names(draft: &mut Draft<'_>, chains: &[&Chain<'_>]) -> (String, String) {
    (draft.texts(chains.iter().map(|chain| &**chain.kind)), draft.texts(chains.iter().map(|chain| chain.key)))
}

/// Instances and versions to be found, as two arguments.
fn expected(draft: &mut Draft<'_>, chains: &[&Chain<'_>]) -> (String, String) {
    let start = |chain: &&Chain<'_>| match chain.start {
        Start::At(instance, version) => (instance.0, version),
        Start::Absent => (chain.instance.0, 0),
    };
    let instances = draft.sql.bind(chains.iter().map(|chain| start(chain).0).collect::<Vec<_>>());
    (instances, draft.sql.bind(chains.iter().map(|chain| start(chain).1).collect::<Vec<_>>()))
}

fn versions(draft: &mut Draft<'_>, chains: &[&Chain<'_>]) -> String {
    draft.sql.bind(chains.iter().map(|chain| chain.version).collect::<Vec<_>>())
}

fn schemas(draft: &mut Draft<'_>, chains: &[&Chain<'_>]) -> String {
    let number = |schema: u32| i32::try_from(schema).unwrap_or(i32::MAX);
    draft.sql.bind(chains.iter().map(|chain| chain.schema.map(number)).collect::<Vec<_>>())
}

fn states(draft: &mut Draft<'_>, chains: &[&Chain<'_>]) -> String {
    let mut states: Vec<&[u8]> = Vec::with_capacity(chains.len());
    for chain in chains {
        states.push(match chain.end {
            End::Kept(_, state) => state,
            End::Live | End::Gone => chain.state.map_or(&[], |state| state),
        });
    }
    draft.sql.bind(states)
}

fn times(draft: &mut Draft<'_>, chains: &[&Chain<'_>]) -> String {
    let keep = |chain: &&Chain<'_>| match chain.end {
        End::Kept(time, _) => Some(micros(time)),
        End::Live | End::Gone => None,
    };
    draft.sql.bind(chains.iter().map(keep).collect::<Vec<_>>())
}

/// What a row must be, as a condition on `t` and `w`. Planted bugs leave out a part.
fn fits() -> String {
    let instance = if sabotage::active("no-instance-check") { "" } else { " and t.instance=w.instance" };
    let version = if sabotage::active("no-version-check") { "" } else { " and t.version=w.expected" };
    format!("{} and t.key=w.key{instance}{version} and t.completed_at is null", probe("kind"))
}

fn update(draft: &mut Draft<'_>, chains: &[&Chain<'_>]) {
    if chains.is_empty() {
        return;
    }
    let (saga, (kinds, keys)) = (draft.table("saga"), names(draft, chains));
    let ((instances, expected), versions) = (expected(draft, chains), versions(draft, chains));
    let (states, schemas) = (states(draft, chains), schemas(draft, chains));
    let part = format!(
        "update {saga} t set version=w.version,state=w.state,schema=w.schema,updated_at={NOW} from \
         unnest({kinds}::text[],{keys}::text[],{instances}::uuid[],{expected}::bigint[],{versions}::bigint[],\
         {states}::bytea[],{schemas}::int[]) w(kind,key,instance,expected,version,state,schema) where {} returning 1",
        fits()
    );
    draft.counted("saga_update", part, chains.len());
}

/// A new life, or one that began and ended here and is kept; a completed one that was kept makes room.
fn put(draft: &mut Draft<'_>, chains: &[&Chain<'_>]) {
    if chains.is_empty() {
        return;
    }
    let (saga, (kinds, keys)) = (draft.table("saga"), names(draft, chains));
    let instances = draft.sql.bind(chains.iter().map(|chain| chain.instance.0).collect::<Vec<_>>());
    let (versions, states, schemas) = (versions(draft, chains), states(draft, chains), schemas(draft, chains));
    let origins: Vec<Option<&[u8]>> = chains.iter().map(|chain| chain.origin.map(|origin| &**origin)).collect();
    let origins = draft.sql.bind(origins);
    let times = times(draft, chains);
    let part = format!(
        "insert into {saga} as t (kind,key,instance,version,state,schema,origin,created_at,updated_at,completed_at,\
         expires_at) select w.kind,w.key,w.instance,w.version,w.state,coalesce(w.schema,0),w.origin,{NOW},{NOW},\
         case when w.keep is not null then {NOW} end,{NOW}+w.keep from unnest({kinds}::text[],{keys}::text[],\
         {instances}::uuid[],{versions}::bigint[],{states}::bytea[],{schemas}::int[],{origins}::bytea[],\
         {times}::bigint[]) w(kind,key,instance,version,state,schema,origin,keep) on conflict (kind,key) do update set \
         instance=excluded.instance,version=excluded.version,state=excluded.state,schema=excluded.schema,\
         origin=excluded.origin,created_at=excluded.created_at,updated_at=excluded.updated_at,\
         completed_at=excluded.completed_at,expires_at=excluded.expires_at where t.completed_at is not null returning 1"
    );
    draft.counted("saga_put", part, chains.len());
}

fn delete(draft: &mut Draft<'_>, chains: &[&Chain<'_>]) {
    if chains.is_empty() {
        return;
    }
    let (saga, (kinds, keys)) = (draft.table("saga"), names(draft, chains));
    let (instances, expected) = expected(draft, chains);
    let part = format!(
        "delete from {saga} t using unnest({kinds}::text[],{keys}::text[],{instances}::uuid[],{expected}::bigint[]) \
         w(kind,key,instance,expected) where {} returning 1",
        fits()
    );
    draft.counted("saga_delete", part, chains.len());
}

fn keep(draft: &mut Draft<'_>, chains: &[&Chain<'_>]) {
    if chains.is_empty() {
        return;
    }
    let (saga, (kinds, keys)) = (draft.table("saga"), names(draft, chains));
    let ((instances, expected), versions) = (expected(draft, chains), versions(draft, chains));
    let (states, schemas, times) = (states(draft, chains), schemas(draft, chains), times(draft, chains));
    let part = format!(
        "update {saga} t set version=w.version,state=w.state,schema=coalesce(w.schema,t.schema),updated_at={NOW},\
         completed_at={NOW},expires_at={NOW}+w.keep from unnest({kinds}::text[],{keys}::text[],{instances}::uuid[],\
         {expected}::bigint[],{versions}::bigint[],{states}::bytea[],{schemas}::int[],{times}::bigint[]) \
         w(kind,key,instance,expected,version,state,schema,keep) where {} returning 1",
        fits()
    );
    draft.counted("saga_keep", part, chains.len());
}

/// Lives that begin and end here and leave nothing: there must be none that lives, and a kept one goes.
fn pass(draft: &mut Draft<'_>, chains: &[&Chain<'_>]) {
    if chains.is_empty() {
        return;
    }
    let (saga, (kinds, keys)) = (draft.table("saga"), names(draft, chains));
    let from = format!("unnest({kinds}::text[],{keys}::text[]) w(kind,key)");
    let same = format!("{} and t.key=w.key and t.completed_at is", probe("kind"));
    draft.checks.push(format!("not exists(select 1 from {from} join {saga} t on {same} null)"));
    draft.part("saga_pass", format!("delete from {saga} t using {from} where {same} not null"));
}

fn aliases(draft: &mut Draft<'_>, plan: &Plan<'_>) {
    let table = draft.table("saga_alias");
    // what ends makes room for what begins: the insert waits for the delete
    let mut after = String::new();
    if !plan.ended.is_empty() {
        let kinds = draft.texts(plan.ended.iter().map(|(kind, _, _)| &***kind));
        let keys = draft.texts(plan.ended.iter().map(|(_, key, _)| *key));
        draft.part(
            "alias_end",
            format!(
                "delete from {table} t using unnest({kinds}::text[],{keys}::text[]) w(kind,key) where {} and \
             (t.kind=w.kind) is true returning 1",
                probe("key")
            ),
        );
        after = "where (select count(*) from alias_end)>=0".into();
    }
    if plan.aliases.is_empty() {
        return;
    }
    let kinds = draft.texts(plan.aliases.iter().map(|alias| &**alias.kind));
    let keys = draft.texts(plan.aliases.iter().map(|alias| alias.key));
    let names = draft.texts(plan.aliases.iter().map(|alias| alias.name));
    let values = draft.texts(plan.aliases.iter().map(|alias| alias.value));
    let instances = draft.sql.bind(plan.aliases.iter().map(|alias| alias.instance.0).collect::<Vec<_>>());
    draft.part(
        "alias_put",
        format!(
            "insert into {table} (kind,alias,value,key,instance) select * from unnest({kinds}::text[],{names}::text[],\
         {values}::text[],{keys}::text[],{instances}::uuid[]) w {after} on conflict (kind,alias,value) do update set \
         key=excluded.key,instance=excluded.instance"
        ),
    );
}
