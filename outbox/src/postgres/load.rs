//! `Store::load`: one round trip, made of the parts that were asked for.

use super::{
    open::OpenSchema,
    sql::{Reader, Sql, Texts},
    text::escape,
};
use crate::dedup::DedupSlot;
use sagabus_core::{LoadReply, LoadRequest, MessageId, Result, SagaLookup, SagaRow, sabotage};
use std::{borrow::Cow, sync::Arc};

const PROBE: i16 = 0;
const BLOCKED_KEY: i16 = 1;
const KEY: i16 = 2;
const ALIAS: i16 = 3;

/// What a part that finds no saga answers in the columns of one.
const NO_SAGA: &str = "null::text,null::text,null::uuid,null::bigint,null::bytea,null::int,null::bytea,null::bool";
/// The columns of a saga whose kind and key the lookup has already.
const KEYED: &str =
    "null::text,null::text,t.instance,t.version,t.state,t.schema,t.origin,t.completed_at is not null as completed";
/// The columns of a saga.
const SAGA: &str =
    "t.kind,t.key,t.instance,t.version,t.state,t.schema,t.origin,t.completed_at is not null as completed";

impl OpenSchema {
    pub(crate) async fn load(&self, request: &LoadRequest) -> Result<LoadReply> {
        let mut reply = LoadReply {
            probes: vec![false; request.probes.len()],
            sagas: vec![None; request.sagas.len()],
            blocked_keys: vec![false; request.blocked_keys.len()],
        };
        let slots: Vec<DedupSlot> = request.probes.iter().map(|(_, id)| self.dedup_slot(*id)).collect();
        let Some((sql, keyed, named)) = self.load_sql(request, &slots) else { return Ok(reply) };
        for row in self.read("load sagas", sql).await? {
            let mut row = Reader::new(&row);
            let (what, at): (i16, usize) = (row.get()?, row.ordinality()?);
            let (list, which) = match what {
                PROBE => (mark(&mut reply.probes, at), None),
                BLOCKED_KEY => (mark(&mut reply.blocked_keys, at), None),
                KEY => (true, keyed.get(at)),
                _ => (true, named.get(at)),
            };
            let Some(slot) = which.filter(|_| list).copied() else { continue };
            let Some(lookup) = request.sagas.get(slot) else { continue };
            let saga = saga_row(&mut row, Some(lookup))?;
            let wanted = match lookup {
                SagaLookup::Instance(address) => address.instance == saga.instance,
                SagaLookup::Key { .. } | SagaLookup::Alias { .. } => true,
            };
            if let Some(slot) = reply.sagas.get_mut(slot).filter(|_| wanted) {
                *slot = Some(saga);
            }
        }
        if sabotage::active("skip-inbox-check") {
            reply.probes.fill(false);
        }
        Ok(reply)
    }

    /// The statement, and which lookups its rows are about: by key and by alias.
    fn load_sql(&self, request: &LoadRequest, slots: &[DedupSlot]) -> Option<(Sql, Vec<usize>, Vec<usize>)> {
        let (mut sql, mut parts) = (Sql::default(), Vec::new());
        let s = &self.s;
        self.probes(&mut sql, &mut parts, request, slots);
        self.blocked_keys(&mut sql, &mut parts, request);
        let (mut keyed, mut named) = (Vec::new(), Vec::new());
        let (mut kinds, mut keys): (Vec<&str>, Texts<'_>) = (Vec::new(), Vec::new());
        let (mut alias_kinds, mut aliases, mut values): (Vec<&str>, Texts<'_>, Texts<'_>) = Default::default();
        for (slot, lookup) in request.sagas.iter().enumerate() {
            match lookup {
                SagaLookup::Key { kind, key } => {
                    keyed.push(slot);
                    kinds.push(kind);
                    keys.push(escape(key));
                }
                SagaLookup::Instance(address) => {
                    keyed.push(slot);
                    kinds.push(&address.kind);
                    keys.push(escape(&address.key));
                }
                SagaLookup::Alias { kind, alias, value } => {
                    named.push(slot);
                    alias_kinds.push(kind);
                    aliases.push(escape(alias));
                    values.push(escape(value));
                }
            }
        }
        if !keyed.is_empty() {
            let (kinds, keys) = (sql.bind(kinds), sql.bind(keys));
            parts.push(format!(
                "select {KEY}::smallint,w.ord,x.* from unnest({kinds}::text[],{keys}::text[]) with ordinality \
                 w(kind,key,ord),lateral (select {KEYED} from {s}saga t where t.kind=w.kind and t.key=w.key offset 0) x"
            ));
        }
        if !named.is_empty() {
            let (kinds, aliases, values) = (sql.bind(alias_kinds), sql.bind(aliases), sql.bind(values));
            parts.push(format!(
                "select {ALIAS}::smallint,w.ord,x.* from unnest({kinds}::text[],{aliases}::text[],{values}::text[]) with \
                 ordinality w(kind,alias,value,ord),lateral (select a.key,a.instance from {s}saga_alias a where \
                 a.kind=w.kind and a.alias=w.alias and a.value=w.value offset 0) a,lateral (select {SAGA} from {s}saga t \
                 where t.kind=w.kind and t.key=a.key and t.instance=a.instance offset 0) x"
            ));
        }
        sql.text = parts.join(" union all ");
        (!parts.is_empty()).then_some((sql, keyed, named))
    }

    fn probes(&self, sql: &mut Sql, parts: &mut Vec<String>, request: &LoadRequest, slots: &[DedupSlot]) {
        let s = &self.s;
        let all = || request.probes.iter().zip(slots).enumerate();
        let ord = |at: usize| i64::try_from(at + 1).unwrap_or(i64::MAX);
        let in_days: Vec<(i64, i32, &str, MessageId)> =
            all().filter_map(|(at, ((handler, id), slot))| Some((ord(at), slot.day?, &**handler, *id))).collect();
        let in_misc: Vec<(i64, &str, MessageId)> =
            all().filter_map(|(at, ((handler, id), slot))| slot.misc.then_some((ord(at), &**handler, *id))).collect();
        if in_days.is_empty() && in_misc.is_empty() {
            return;
        }
        let endpoint = sql.bind(&*request.endpoint);
        if !in_days.is_empty() {
            let ords = sql.bind(in_days.iter().map(|probe| probe.0).collect::<Vec<_>>());
            let days = sql.bind(in_days.iter().map(|probe| probe.1).collect::<Vec<_>>());
            let handlers = sql.bind(in_days.iter().map(|probe| probe.2).collect::<Vec<_>>());
            let ids = sql.bind(in_days.iter().map(|probe| probe.3.0).collect::<Vec<_>>());
            parts.push(format!(
                "select {PROBE}::smallint,w.ord,{NO_SAGA} from unnest({ords}::bigint[],{days}::int[],{ids}::uuid[],\
                 {handlers}::text[]) w(ord,day,id,handler),lateral (select 1 from {s}inbox i where i.day=w.day and \
                 i.message_id=w.id and i.handler=w.handler and i.endpoint={endpoint} offset 0) x"
            ));
        }
        if !in_misc.is_empty() {
            let ords = sql.bind(in_misc.iter().map(|probe| probe.0).collect::<Vec<_>>());
            let handlers = sql.bind(in_misc.iter().map(|probe| probe.1).collect::<Vec<_>>());
            let ids = sql.bind(in_misc.iter().map(|probe| probe.2.0).collect::<Vec<_>>());
            parts.push(format!(
                "select {PROBE}::smallint,w.ord,{NO_SAGA} from unnest({ords}::bigint[],{ids}::uuid[],{handlers}::text[]) \
                 w(ord,id,handler),lateral (select 1 from {s}inbox_misc i where i.message_id=w.id and \
                 i.handler=w.handler and i.endpoint={endpoint} offset 0) x"
            ));
        }
    }

    fn blocked_keys(&self, sql: &mut Sql, parts: &mut Vec<String>, request: &LoadRequest) {
        if request.blocked_keys.is_empty() {
            return;
        }
        let s = &self.s;
        let endpoint = sql.bind(&*request.endpoint);
        let handlers = sql.bind(request.blocked_keys.iter().map(|(handler, _)| &**handler).collect::<Vec<_>>());
        let keys = sql.bind(request.blocked_keys.iter().map(|(_, key)| escape(key)).collect::<Vec<Cow<'_, str>>>());
        let same = format!("t.endpoint={endpoint} and t.handler=w.handler and t.order_key=w.order_key offset 0");
        parts.push(format!(
            "select {BLOCKED_KEY}::smallint,w.ord,{NO_SAGA} from unnest({handlers}::text[],{keys}::text[]) with ordinality \
             w(handler,order_key,ord) where exists(select 1 from {s}retry t where {same}) or exists(select 1 from {s}parked t \
             where {same})"
        ));
    }
}

fn mark(list: &mut [bool], at: usize) -> bool {
    if let Some(slot) = list.get_mut(at) {
        *slot = true;
    }
    false
}

/// Reads a saga's columns; what the lookup says of it is not read again.
pub(crate) fn saga_row(row: &mut Reader<'_>, lookup: Option<&SagaLookup>) -> Result<SagaRow> {
    let (kind, key): (Arc<str>, String) = match lookup {
        Some(SagaLookup::Key { kind, key }) => (kind.clone(), row.skip(key.clone(), 2)),
        Some(SagaLookup::Instance(address)) => (address.kind.as_str().into(), row.skip(address.key.clone(), 2)),
        Some(SagaLookup::Alias { kind, .. }) => (row.skip(kind.clone(), 1), row.text()?),
        None => (row.text()?.into(), row.text()?),
    };
    Ok(SagaRow {
        kind,
        key,
        instance: row.instance()?,
        version: row.get()?,
        state: row.bytes()?,
        schema: row.count()?,
        origin: row.get::<Option<Vec<u8>>>()?.map(Into::into),
        completed: row.get()?,
    })
}
