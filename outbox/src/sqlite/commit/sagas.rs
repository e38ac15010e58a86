//! Saga rows and their further keys.

use super::{
    super::{
        sql::{self, Rows, Step},
        write_context::WriteContext,
    },
    statements::{ExpectedRows, StatementBatch},
};
use crate::fold::{Chain, End, FoldedBatch, Start};
use sagabus_core::{Result, Timestamp, sabotage};

// `or fail`: a statement that could abort would copy every page it touches first, and whatever goes wrong here rolls the
// whole batch back anyway
static CREATE: Rows = Rows::new(
    "insert or fail into saga(created_at,updated_at,kind,key,instance,version,state,schema,origin,completed_at,\
     expires_at) select ?,?,column1,column2,column3,column4,column5,column6,column7,column8,column9 from (values ",
    "(?,?,?,?,?,?,?,?,?)",
    ") w where column1 is not null on conflict(kind,key) do update set created_at=excluded.created_at,\
     updated_at=excluded.updated_at,instance=excluded.instance,version=excluded.version,state=excluded.state,\
     schema=excluded.schema,origin=excluded.origin,completed_at=excluded.completed_at,expires_at=excluded.expires_at \
     where saga.completed_at is not null",
);

macro_rules! update {
    ($condition:literal) => {
        Rows::new(
            "update or fail saga set updated_at=?,version=w.column4+w.column5,state=w.column6,\
             schema=coalesce(w.column7,saga.schema),completed_at=w.column8,expires_at=w.column9 from (values ",
            "(?,?,?,?,?,?,?,?,?)",
            concat!(") w where saga.kind=w.column1 and saga.key=w.column2 and saga.completed_at is null", $condition),
        )
    };
}

static UPDATE: Rows = update!(" and saga.instance=w.column3 and saga.version=w.column4");
// planted bugs
static UPDATE_ANY_VERSION: Rows = update!(" and saga.instance=w.column3");
static UPDATE_ANY_INSTANCE: Rows = update!(" and saga.version=w.column4");

static DELETE: Rows = Rows::new(
    "delete from saga where (kind,key) in (select s.kind,s.key from (values ",
    "(?,?,?,?)",
    ") w cross join saga s on s.kind=w.column1 and s.key=w.column2 where s.instance=w.column3 and \
     s.version=w.column4 and s.completed_at is null)",
);

static DELETE_COMPLETED: Rows = Rows::new(
    "delete from saga where (kind,key) in (select s.kind,s.key from (values ",
    "(?,?)",
    ") w cross join saga s on s.kind=w.column1 and s.key=w.column2 where s.completed_at is not null)",
);

static LIVE: Rows = Rows::new(
    "select count(*) from (values ",
    "(?,?)",
    ") w cross join saga s on s.kind=w.column1 and s.key=w.column2 where s.completed_at is null",
);

static ALIAS: Rows = Rows::new(
    "insert or replace into saga_alias(kind,alias,value,key,instance) select column1,column2,column3,column4,column5 \
     from (values ",
    "(?,?,?,?,?)",
    ") w where column1 is not null",
);

static END_ALIASES: Rows = Rows::new(
    "delete from saga_alias where (kind,alias,value) in (select a.kind,a.alias,a.value from (values ",
    "(?,?)",
    ") w cross join saga_alias a on a.kind=w.column1 and a.key=w.column2)",
);

/// Whether the sagas that begin and end in this batch do not exist: a row that is never written cannot collide.
pub(super) async fn absent(context: &mut WriteContext<'_>, folded: &FoldedBatch<'_>) -> Result<bool> {
    for step in key_steps(&LIVE, &fleeting(folded))? {
        for row in step.fetch(context.connection, "look for a saga in sqlite").await? {
            if sql::column::<i64>(&row, 0)? > 0 {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn fleeting<'p, 'b>(folded: &'p FoldedBatch<'b>) -> Vec<&'p Chain<'b>> {
    folded.chains.iter().filter(|chain| chain.start == Start::Absent && chain.end == End::Gone).collect()
}

fn key_steps(statement: &Rows, chains: &[&Chain<'_>]) -> Result<Vec<Step>> {
    Step::rows(
        statement,
        chains,
        |_| {},
        |args, chain| {
            args.shared(chain.kind);
            args.text(chain.key);
            Ok(())
        },
    )
}

/// Writes the saga rows.
pub(super) fn write(
    context: &WriteContext<'_>,
    folded: &FoldedBatch<'_>,
    statements: &mut StatementBatch<'_>,
) -> Result<()> {
    let now = context.now;
    let chosen = |choose: &dyn Fn(&Chain<'_>) -> bool| folded.chains.iter().filter(|c| choose(c)).collect::<Vec<_>>();
    let created = chosen(&|chain| chain.start == Start::Absent && chain.end != End::Gone);
    let steps = Step::rows(
        &CREATE,
        &created,
        |args| {
            args.time(now);
            args.time(now);
        },
        |args, chain| {
            args.shared(chain.kind);
            args.text(chain.key);
            args.id(chain.instance.0);
            args.int(chain.version);
            args.blob(chain.stored_state());
            args.int(i64::from(chain.schema.unwrap_or(0)));
            args.maybe_blob(chain.origin.map(|origin| &**origin));
            ending(args, chain, now);
            Ok(())
        },
    )?;
    statements.add(steps, created.len(), ExpectedRows::Exactly);
    let updated = chosen(&|chain| chain.start != Start::Absent && chain.end != End::Gone);
    let steps = Step::rows(
        update(),
        &updated,
        |args| args.time(now),
        |args, chain| {
            args.shared(chain.kind);
            args.text(chain.key);
            args.id(chain.instance.0);
            args.int(chain.expected_version());
            args.int(chain.version - chain.expected_version());
            args.blob(chain.stored_state());
            args.maybe_int(chain.schema.map(i64::from));
            ending(args, chain, now);
            Ok(())
        },
    )?;
    statements.add(steps, updated.len(), ExpectedRows::Exactly);
    let deleted = chosen(&|chain| chain.start != Start::Absent && chain.end == End::Gone);
    let steps = Step::rows(
        &DELETE,
        &deleted,
        |_| {},
        |args, chain| {
            args.shared(chain.kind);
            args.text(chain.key);
            args.id(chain.instance.0);
            args.int(chain.expected_version());
            Ok(())
        },
    )?;
    statements.add(steps, deleted.len(), ExpectedRows::Exactly);
    statements.add_any(key_steps(&DELETE_COMPLETED, &fleeting(folded))?);
    aliases(folded, statements)
}

fn update() -> &'static Rows {
    if sabotage::active("no-version-check") {
        &UPDATE_ANY_VERSION
    } else if sabotage::active("no-instance-check") {
        &UPDATE_ANY_INSTANCE
    } else {
        &UPDATE
    }
}

/// When it completed and until when it is kept; nothing while it lives.
fn ending(args: &mut sql::Args, chain: &Chain<'_>, now: Timestamp) {
    let kept = match chain.end {
        End::Kept(time, _) => Some((now.0, now.plus(time).0)),
        End::Live | End::Gone => None,
    };
    args.maybe_int(kept.map(|(completed, _)| completed));
    args.maybe_int(kept.map(|(_, until)| until));
}

fn aliases(folded: &FoldedBatch<'_>, statements: &mut StatementBatch<'_>) -> Result<()> {
    statements.add_any(Step::rows(
        &END_ALIASES,
        &folded.ended,
        |_| {},
        |args, (kind, key, _)| {
            args.shared(kind);
            args.text(key);
            Ok(())
        },
    )?);
    statements.add_any(Step::rows(
        &ALIAS,
        &folded.aliases,
        |_| {},
        |args, alias| {
            args.shared(alias.kind);
            args.text(alias.name);
            args.text(alias.value);
            args.text(alias.key);
            args.id(alias.instance.0);
            Ok(())
        },
    )?);
    Ok(())
}
