-- How far an endpoint has come in the partitions of a log that others can set back: everything below the base was handled.
create table log_position (
    endpoint text not null,
    log text not null,
    part integer not null,
    base integer not null,
    epoch integer not null,             -- who may raise it: grows whenever the partition changes hands
    mark text not null,                 -- by which the transport knows the log again
    at integer not null,
    primary key (endpoint, log, part)
) strict, without rowid;

-- What operators did.
create table operator_audit (
    id integer primary key autoincrement,
    at integer not null,
    endpoint text not null,
    operator text not null,
    action text not null,
    subject text not null,
    before text not null,
    after text not null,
    why text not null
) strict;
create index operator_audit_list on operator_audit (endpoint, id);

insert into sagabus_schema values (2);
