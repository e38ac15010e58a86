//! What the scheduler asks before it runs units.

use super::{
    dedup_day::dedup_slot,
    error::is_too_big,
    open::OpenFile,
    packed_rows::PackedRows,
    sql::{self, Rows, Step},
};
use sagabus_core::{InstanceId, LoadReply, LoadRequest, MessageId, Result, SagaLookup, SagaRow, Timestamp, sabotage};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use std::{collections::HashMap, sync::Arc, time::Duration};

pub(crate) static BY_KEY: Rows = Rows::new(
    "select cast(group_concat(column1||' '||s.version||' '||s.schema||' '||(s.completed_at is not null)||' '||\
     octet_length(s.state)||' '||coalesce(octet_length(s.origin),-1)||' '||s.instance||s.state||\
     coalesce(s.origin,''),'') as blob) from (values ",
    "(?,?,?)",
    ") w cross join saga s on s.kind=w.column2 and s.key=w.column3",
);

/// The same row by row, for rows that are too large together.
static BY_KEY_EACH: Rows = Rows::new(
    "select column1,s.instance,s.version,s.state,s.schema,s.origin,s.completed_at is not null from (values ",
    "(?,?,?)",
    ") w cross join saga s on s.kind=w.column2 and s.key=w.column3",
);

pub(crate) static BY_ALIAS: Rows = Rows::new(
    "select column1,s.instance,s.version,s.state,s.schema,s.origin,s.completed_at is not null,s.key from (values ",
    "(?,?,?,?)",
    ") w cross join saga_alias a on a.kind=w.column2 and a.alias=w.column3 and a.value=w.column4 cross join saga s on \
     s.kind=a.kind and s.key=a.key where s.instance=a.instance",
);

pub(crate) static PROBE: Rows = Rows::new(
    "select column1 from (values ",
    "(?,?,?,?,?)",
    ") w where exists(select 1 from inbox i where i.day=column2 and i.endpoint=column3 and i.handler=column4 and \
     i.message_id=column5) or exists(select 1 from inbox_misc m where m.endpoint=column3 and m.handler=column4 and \
     m.message_id=column5)",
);

pub(crate) static BLOCKED_KEYS: Rows = Rows::new(
    "select column1 from (values ",
    "(?,?,?,?)",
    ") w where exists(select 1 from retry r where r.endpoint=column2 and r.handler=column3 and r.order_key=column4 and \
     r.order_key is not null) or exists(select 1 from parked p where p.endpoint=column2 and p.handler=column3 and \
     p.order_key=column4 and p.order_key is not null)",
);

impl OpenFile {
    pub(crate) async fn load(&self, request: LoadRequest) -> Result<LoadReply> {
        // only ids of an unusual age depend on the time, and for those any clock will do: both places are looked at
        let now = self.shared.runtime().now();
        let horizon = self.shared.options.horizon;
        self.load.run(&self.shared, async |connection| load(connection, &request, now, horizon).await).await
    }
}

async fn load(
    connection: &mut SqliteConnection,
    request: &LoadRequest,
    now: Timestamp,
    horizon: Duration,
) -> Result<LoadReply> {
    Ok(LoadReply {
        probes: probes(connection, request, now, horizon).await?,
        sagas: sagas(connection, &request.sagas).await?,
        blocked_keys: blocked_keys(connection, request).await?,
    })
}

async fn probes(
    connection: &mut SqliteConnection,
    request: &LoadRequest,
    now: Timestamp,
    horizon: Duration,
) -> Result<Vec<bool>> {
    let mut known = vec![false; request.probes.len()];
    if sabotage::active("skip-inbox-check") {
        return Ok(known);
    }
    let mut index = 0i64;
    let steps = Step::rows(
        &PROBE,
        &request.probes,
        |_| {},
        |args, (handler, id): &(Arc<str>, MessageId)| {
            args.int(index);
            index += 1;
            args.maybe_int(dedup_slot(*id, now, horizon).day.map(i64::from));
            args.shared(&request.endpoint);
            args.shared(handler);
            args.id(id.0);
            Ok(())
        },
    )?;
    mark(connection, steps, &mut known).await?;
    Ok(known)
}

async fn blocked_keys(connection: &mut SqliteConnection, request: &LoadRequest) -> Result<Vec<bool>> {
    let mut blocked = vec![false; request.blocked_keys.len()];
    let mut index = 0i64;
    let steps = Step::rows(
        &BLOCKED_KEYS,
        &request.blocked_keys,
        |_| {},
        |args, (handler, key)| {
            args.int(index);
            index += 1;
            args.shared(&request.endpoint);
            args.shared(handler);
            args.text(key);
            Ok(())
        },
    )?;
    mark(connection, steps, &mut blocked).await?;
    Ok(blocked)
}

async fn mark(connection: &mut SqliteConnection, steps: Vec<Step>, marks: &mut [bool]) -> Result<()> {
    for step in steps {
        for row in step.fetch(connection, "load from sqlite").await? {
            if let Some(mark) = marks.get_mut(sql::position(&row, 0)?) {
                *mark = true;
            }
        }
    }
    Ok(())
}

/// Lookups of the same key share one reading.
async fn sagas(connection: &mut SqliteConnection, lookups: &[SagaLookup]) -> Result<Vec<Option<SagaRow>>> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    let mut indices: HashMap<(&str, &str), usize> = HashMap::new();
    let mut aliases: Vec<(usize, &Arc<str>, &str, &str)> = Vec::new();
    for (index, lookup) in lookups.iter().enumerate() {
        let key = match lookup {
            SagaLookup::Key { kind, key } => (&**kind, key.as_str()),
            SagaLookup::Instance(address) => (address.kind.as_str(), address.key.as_str()),
            SagaLookup::Alias { kind, alias, value } => {
                aliases.push((index, kind, alias, value));
                continue;
            }
        };
        indices.entry(key).or_insert_with(|| {
            keys.push(key);
            keys.len() - 1
        });
    }
    let found = match by_key(connection, &keys).await {
        Err(error) if is_too_big(&error) => by_key_each(connection, &keys).await?,
        found => found?,
    };
    let mut answers: Vec<Option<SagaRow>> = Vec::with_capacity(lookups.len());
    for lookup in lookups {
        let row = |kind: &str, key: &str| indices.get(&(kind, key)).and_then(|index| found.get(*index)?.clone());
        answers.push(match lookup {
            SagaLookup::Key { kind, key } => row(kind, key).map(|row| SagaRow { kind: Arc::clone(kind), ..row }),
            SagaLookup::Instance(address) => {
                row(&address.kind, &address.key).filter(|row| row.instance == address.instance)
            }
            SagaLookup::Alias { .. } => None,
        });
    }
    by_alias(connection, &aliases, &mut answers).await?;
    Ok(answers)
}

fn key_steps(statement: &Rows, keys: &[(&str, &str)]) -> Result<Vec<Step>> {
    let mut index = 0i64;
    Step::rows(
        statement,
        keys,
        |_| {},
        |args, (kind, key)| {
            args.int(index);
            index += 1;
            args.text(kind);
            args.text(key);
            Ok(())
        },
    )
}

async fn by_key(connection: &mut SqliteConnection, keys: &[(&str, &str)]) -> Result<Vec<Option<SagaRow>>> {
    let mut found: Vec<Option<SagaRow>> = vec![None; keys.len()];
    for step in key_steps(&BY_KEY, keys)? {
        let mut packed = PackedRows::new(&step.fetch(connection, "load sagas from sqlite").await?)?;
        while !packed.is_empty() {
            let index = usize::try_from(packed.number()?).unwrap_or(usize::MAX);
            let (version, schema, completed) = (packed.number()?, packed.number()?, packed.number()?);
            let (state, origin) = (packed.number()?, packed.number()?);
            let (instance, state) = (InstanceId(packed.uuid()?), packed.bytes(state)?);
            let origin = if origin < 0 { None } else { Some(packed.bytes(origin)?) };
            if let (Some(slot), Some((kind, key))) = (found.get_mut(index), keys.get(index)) {
                *slot = Some(SagaRow {
                    kind: Arc::from(*kind),
                    key: (*key).to_string(),
                    instance,
                    version,
                    state,
                    schema: u32::try_from(schema).unwrap_or(0),
                    origin,
                    completed: completed != 0,
                });
            }
        }
    }
    Ok(found)
}

async fn by_key_each(connection: &mut SqliteConnection, keys: &[(&str, &str)]) -> Result<Vec<Option<SagaRow>>> {
    let mut found: Vec<Option<SagaRow>> = vec![None; keys.len()];
    for step in key_steps(&BY_KEY_EACH, keys)? {
        for row in step.fetch(connection, "load sagas from sqlite").await? {
            let index = sql::position(&row, 0)?;
            if let (Some(slot), Some((kind, key))) = (found.get_mut(index), keys.get(index)) {
                *slot = Some(saga_row(&row, Arc::from(*kind), (*key).to_string())?);
            }
        }
    }
    Ok(found)
}

async fn by_alias(
    connection: &mut SqliteConnection,
    aliases: &[(usize, &Arc<str>, &str, &str)],
    answers: &mut [Option<SagaRow>],
) -> Result<()> {
    let steps = Step::rows(
        &BY_ALIAS,
        aliases,
        |_| {},
        |args, (index, kind, alias, value)| {
            args.int(i64::try_from(*index).unwrap_or(i64::MAX));
            args.shared(kind);
            args.text(alias);
            args.text(value);
            Ok(())
        },
    )?;
    let kinds: HashMap<usize, &Arc<str>> = aliases.iter().map(|(index, kind, _, _)| (*index, *kind)).collect();
    for step in steps {
        for row in step.fetch(connection, "load sagas by alias from sqlite").await? {
            let index = sql::position(&row, 0)?;
            if let (Some(slot), Some(kind)) = (answers.get_mut(index), kinds.get(&index)) {
                *slot = Some(saga_row(&row, Arc::clone(kind), sql::column(&row, 7)?)?);
            }
        }
    }
    Ok(())
}

/// Columns 1 to 6 of the statements above.
pub(crate) fn saga_row(row: &SqliteRow, kind: Arc<str>, key: String) -> Result<SagaRow> {
    Ok(SagaRow {
        kind,
        key,
        instance: InstanceId(sql::uuid(row, 1)?),
        version: sql::column(row, 2)?,
        state: sql::bytes(row, 3)?,
        schema: u32::try_from(sql::column::<i64>(row, 4)?).unwrap_or(0),
        origin: sql::column::<Option<&[u8]>>(row, 5)?.map(bytes::Bytes::copy_from_slice),
        completed: sql::column(row, 6)?,
    })
}
