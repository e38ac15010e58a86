-- Triggers on the product's own tables, so that it cannot keep to itself what it did. On PostgreSQL.
create table if not exists public.audit (
    seq bigint generated always as identity primary key,
    tbl text not null, op text not null,
    kind text, key text, instance text,
    old_version bigint, new_version bigint,
    due bigint, at bigint not null default floor(extract(epoch from clock_timestamp()) * 1000000)::bigint
);
-- A row's trigger runs under the row's lock, so that of one saga the numbers come in the order of commits.
create or replace function public.audit_saga() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into public.audit (tbl, op, kind, key, instance, new_version)
        values ('saga', 'insert', new.kind, new.key, new.instance::text, new.version);
    elsif tg_op = 'UPDATE' then
        insert into public.audit (tbl, op, kind, key, instance, old_version, new_version)
        values ('saga', case when old.instance = new.instance then 'update' else 'replace' end, new.kind, new.key,
                new.instance::text, old.version, new.version);
    else
        insert into public.audit (tbl, op, kind, key, instance, old_version)
        values ('saga', 'delete', old.kind, old.key, old.instance::text, old.version);
    end if;
    return null;
end $$;
create or replace trigger audit_saga after insert or update or delete on sagabus.saga
    for each row execute function public.audit_saga();

create or replace function public.audit_timer() returns trigger language plpgsql as $$
begin
    insert into public.audit (tbl, op, kind, key, instance, due)
    values ('timer', 'delete', old.kind, old.key, old.instance::text, old.due);
    return null;
end $$;
create or replace trigger audit_timer after delete on sagabus.timer for each row execute function public.audit_timer();

create or replace function public.audit_outbox() returns trigger language plpgsql as $$
begin
    insert into public.audit (tbl, op, instance) values ('outbox', 'takeover', new.node::text);
    return null;
end $$;
create or replace trigger audit_outbox after update of node on sagabus.outbox
    for each row when (old.node is distinct from new.node) execute function public.audit_outbox();

create or replace function public.audit_dead_letter() returns trigger language plpgsql as $$
begin
    insert into public.audit (tbl, op, kind) values ('dead_letter', 'insert', new.reason);
    return null;
end $$;
create or replace trigger audit_dead_letter after insert on sagabus.dead_letter
    for each row execute function public.audit_dead_letter();

-- Numbers a row of the ledger when its transaction is about to commit: ids are drawn when it is written. Under one key
-- of an ordered endpoint one commit comes after another, so that a later one has a greater number.
create sequence if not exists public.effect_seq cache 1;
create or replace function public.audit_effect() returns trigger language plpgsql as $$
begin
    update public.effect set seq = nextval('public.effect_seq') where id = new.id;
    return null;
end $$;
create constraint trigger audit_effect after insert on public.effect deferrable initially deferred
    for each row execute function public.audit_effect();
