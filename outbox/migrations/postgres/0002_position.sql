-- How far an endpoint has come in the partitions of a log that others can set back: everything below the base was handled.
create table {schema}.log_position (
    endpoint text collate "C" not null,
    log text collate "C" not null,
    part integer not null,
    base bigint not null,
    epoch bigint not null,                   -- who may raise it: grows whenever the partition changes hands
    mark text not null,                      -- by which the transport knows the log again
    at bigint not null,
    primary key (endpoint, log, part)
) with (vacuum_truncate = false, fillfactor = 50);

-- What operators did.
create table {schema}.operator_audit (
    id bigint generated always as identity primary key,
    at bigint not null,
    endpoint text collate "C" not null,
    operator text not null,
    action text not null,
    subject text not null,
    before text not null,
    after text not null,
    why text not null
) with (vacuum_truncate = false);
create index operator_audit_list on {schema}.operator_audit (endpoint, id);

-- As in the first step: each table has a page from the start.
insert into {schema}.log_position values ('', '', 0, 0, 0, '', 0);
insert into {schema}.operator_audit (at, endpoint, operator, action, subject, before, after, why) values (0, '', '', '', '', '', '', '');
delete from {schema}.log_position;
delete from {schema}.operator_audit;
