//! Saga rows and their further keys.

use super::{
    super::sql::{NOW, indexed_equals, micros},
    draft::StatementBuilder,
};
use crate::fold::{Chain, End, FoldedBatch, Start};
use sagabus_core::sabotage;

pub(super) fn write(draft: &mut StatementBuilder<'_>, folded: &FoldedBatch<'_>) {
    let chains = &folded.chains;
    let of = |start: fn(&Start) -> bool, end: fn(&End<'_>) -> bool| -> Vec<&Chain<'_>> {
        chains.iter().filter(|chain| start(&chain.start) && end(&chain.end)).collect()
    };
    let absent = |start: &Start| *start == Start::Absent;
    let at = |start: &Start| *start != Start::Absent;
    update_saga(draft, &of(at, |end| *end == End::Live));
    upsert_saga(draft, &of(absent, |end| *end != End::Gone));
    delete_saga(draft, &of(at, |end| *end == End::Gone));
    keep_completed(draft, &of(at, |end| matches!(end, End::Kept(..))));
    delete_transient(draft, &of(absent, |end| *end == End::Gone));
    aliases(draft, folded);
}

/// Kinds and keys as two arguments.
fn names(draft: &mut StatementBuilder<'_>, chains: &[&Chain<'_>]) -> (String, String) {
    (draft.texts(chains.iter().map(|chain| &**chain.kind)), draft.texts(chains.iter().map(|chain| chain.key)))
}

/// Instances and versions to be found, as two arguments.
fn expected(draft: &mut StatementBuilder<'_>, chains: &[&Chain<'_>]) -> (String, String) {
    let instances = draft.sql.bind(chains.iter().map(|chain| chain.instance.0).collect::<Vec<_>>());
    (instances, draft.sql.bind(chains.iter().map(|chain| chain.expected_version()).collect::<Vec<_>>()))
}

fn versions(draft: &mut StatementBuilder<'_>, chains: &[&Chain<'_>]) -> String {
    draft.sql.bind(chains.iter().map(|chain| chain.version).collect::<Vec<_>>())
}

fn schemas(draft: &mut StatementBuilder<'_>, chains: &[&Chain<'_>]) -> String {
    let number = |schema: u32| i32::try_from(schema).unwrap_or(i32::MAX);
    draft.sql.bind(chains.iter().map(|chain| chain.schema.map(number)).collect::<Vec<_>>())
}

fn states(draft: &mut StatementBuilder<'_>, chains: &[&Chain<'_>]) -> String {
    draft.sql.bind(chains.iter().map(|chain| chain.stored_state()).collect::<Vec<&[u8]>>())
}

fn times(draft: &mut StatementBuilder<'_>, chains: &[&Chain<'_>]) -> String {
    let keep = |chain: &&Chain<'_>| match chain.end {
        End::Kept(time, _) => Some(micros(time)),
        End::Live | End::Gone => None,
    };
    draft.sql.bind(chains.iter().map(keep).collect::<Vec<_>>())
}

/// What a row must be, as a condition on `t` and `w`. Planted bugs leave out a part.
fn matches_saga() -> String {
    let instance = if sabotage::active("no-instance-check") { "" } else { " and t.instance=w.instance" };
    let version = if sabotage::active("no-version-check") { "" } else { " and t.version=w.expected" };
    format!("{} and t.key=w.key{instance}{version} and t.completed_at is null", indexed_equals("kind"))
}

fn update_saga(draft: &mut StatementBuilder<'_>, chains: &[&Chain<'_>]) {
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
        matches_saga()
    );
    draft.counted("saga_update", part, chains.len());
}

/// Inserts a new instance, or one that began and ended in this batch and is kept. It replaces a completed one that was
/// kept.
fn upsert_saga(draft: &mut StatementBuilder<'_>, chains: &[&Chain<'_>]) {
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

fn delete_saga(draft: &mut StatementBuilder<'_>, chains: &[&Chain<'_>]) {
    if chains.is_empty() {
        return;
    }
    let (saga, (kinds, keys)) = (draft.table("saga"), names(draft, chains));
    let (instances, expected) = expected(draft, chains);
    let part = format!(
        "delete from {saga} t using unnest({kinds}::text[],{keys}::text[],{instances}::uuid[],{expected}::bigint[]) \
         w(kind,key,instance,expected) where {} returning 1",
        matches_saga()
    );
    draft.counted("saga_delete", part, chains.len());
}

fn keep_completed(draft: &mut StatementBuilder<'_>, chains: &[&Chain<'_>]) {
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
        matches_saga()
    );
    draft.counted("saga_keep", part, chains.len());
}

/// Instances that begin and end in this batch and leave nothing: there must be no running one, and a kept one goes.
fn delete_transient(draft: &mut StatementBuilder<'_>, chains: &[&Chain<'_>]) {
    if chains.is_empty() {
        return;
    }
    let (saga, (kinds, keys)) = (draft.table("saga"), names(draft, chains));
    let from = format!("unnest({kinds}::text[],{keys}::text[]) w(kind,key)");
    let same = format!("{} and t.key=w.key and t.completed_at is", indexed_equals("kind"));
    draft.checks.push(format!("not exists(select 1 from {from} join {saga} t on {same} null)"));
    draft.part("saga_pass", format!("delete from {saga} t using {from} where {same} not null"));
}

fn aliases(draft: &mut StatementBuilder<'_>, folded: &FoldedBatch<'_>) {
    let table = draft.table("saga_alias");
    // what ends makes room for what begins: the insert waits for the delete
    let mut after = String::new();
    if !folded.ended.is_empty() {
        let kinds = draft.texts(folded.ended.iter().map(|(kind, _, _)| &***kind));
        let keys = draft.texts(folded.ended.iter().map(|(_, key, _)| *key));
        draft.part(
            "alias_end",
            format!(
                "delete from {table} t using unnest({kinds}::text[],{keys}::text[]) w(kind,key) where {} and \
             (t.kind=w.kind) is true returning 1",
                indexed_equals("key")
            ),
        );
        after = "where (select count(*) from alias_end)>=0".into();
    }
    if folded.aliases.is_empty() {
        return;
    }
    let kinds = draft.texts(folded.aliases.iter().map(|alias| &**alias.kind));
    let keys = draft.texts(folded.aliases.iter().map(|alias| alias.key));
    let names = draft.texts(folded.aliases.iter().map(|alias| alias.name));
    let values = draft.texts(folded.aliases.iter().map(|alias| alias.value));
    let instances = draft.sql.bind(folded.aliases.iter().map(|alias| alias.instance.0).collect::<Vec<_>>());
    draft.part(
        "alias_put",
        format!(
            "insert into {table} (kind,alias,value,key,instance) select * from unnest({kinds}::text[],{names}::text[],\
         {values}::text[],{keys}::text[],{instances}::uuid[]) w {after} on conflict (kind,alias,value) do update set \
         key=excluded.key,instance=excluded.instance"
        ),
    );
}
