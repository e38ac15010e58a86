//! Triggers on the product's own tables, so that it cannot keep to itself what it did.

use anyhow::Result;

use super::db::Db;

/// Microseconds by the database's clock.
const NOW: &str = "cast(unixepoch('now', 'subsec') * 1000 as integer) * 1000";

/// Installs the triggers in a store whose tables exist, and those of the ledger.
pub fn install(db: &mut Db) -> Result<()> {
    if db.is_postgres() {
        return db.run(include_str!("audit_postgres.sql"));
    }
    db.run(&format!(
        "create table if not exists audit (
            seq integer primary key autoincrement,
            tbl text not null, op text not null,
            kind text, key text, instance text,
            old_version integer, new_version integer,
            due integer, at integer not null default ({NOW})
        );
        create trigger if not exists audit_saga_insert after insert on saga begin
            insert into audit (tbl, op, kind, key, instance, new_version)
            values ('saga', 'insert', new.kind, new.key, hex(new.instance), new.version);
        end;
        create trigger if not exists audit_saga_update after update on saga begin
            insert into audit (tbl, op, kind, key, instance, old_version, new_version)
            values ('saga', iif(old.instance = new.instance, 'update', 'replace'), new.kind, new.key,
                    hex(new.instance), old.version, new.version);
        end;
        create trigger if not exists audit_saga_delete after delete on saga begin
            insert into audit (tbl, op, kind, key, instance, old_version)
            values ('saga', 'delete', old.kind, old.key, hex(old.instance), old.version);
        end;
        create trigger if not exists audit_timer_delete after delete on timer begin
            insert into audit (tbl, op, kind, key, instance, due)
            values ('timer', 'delete', old.kind, old.key, hex(old.instance), old.due);
        end;
        create trigger if not exists audit_outbox_owner after update of node on outbox when old.node <> new.node begin
            insert into audit (tbl, op, instance) values ('outbox', 'takeover', hex(new.node));
        end;
        create trigger if not exists audit_dead_letter_insert after insert on dead_letter begin
            insert into audit (tbl, op, kind) values ('dead_letter', 'insert', new.reason);
        end;"
    ))
}
