-- sagabus in one PostgreSQL schema ({schema} stands for its quoted name). Times are microseconds since 1970 UTC by this
-- database's clock; headers are JSON. Text that an application chose is stored with U+0000, which PostgreSQL refuses,
-- escaped as U+0001 U+0001, and U+0001 as U+0001 U+0002: the order stays that of the bytes.
-- Look with: select handler, at, reason, headers from sagabus.dead_letter;

-- One row per live saga, and per completed one that is kept for a time. Nothing that changes is indexed, and pages keep
-- room, so that updates stay on their page (HOT). What changes lies together, before the end of the row: of an update the
-- log takes only what lies between the first and the last byte that differ.
create table {schema}.saga (
    kind text collate "C" not null,          -- endpoint/saga
    key text collate "C" not null,           -- the correlation value
    origin bytea,                            -- who started it
    instance uuid not null,                  -- this life
    created_at bigint not null,
    completed_at bigint,                     -- null while it lives
    expires_at bigint,                       -- when a completed one is dropped
    schema integer not null,                 -- the version of the state's schema
    version bigint not null,                 -- how many units it has applied
    updated_at bigint not null,
    state bytea not null,
    primary key (kind, key)
) with (vacuum_truncate = false, fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
create index saga_expires on {schema}.saga (expires_at) where expires_at is not null;

create table {schema}.saga_alias (
    kind text collate "C" not null,
    alias text collate "C" not null,
    value text collate "C" not null,
    key text collate "C" not null,
    instance uuid not null,                  -- the life that added it
    primary key (kind, alias, value)
) with (vacuum_truncate = false);
create index saga_alias_key on {schema}.saga_alias (kind, key);
-- messages are parked for an alias under "alias=value"
create index saga_alias_parked on {schema}.saga_alias (kind, (alias || '=' || value));

-- Handled messages, by the day that their UUIDv7 carries: a partition per day, dropped when that day is two horizons old.
create table {schema}.inbox (
    day integer not null,
    message_id uuid not null,
    handler text collate "C" not null,
    endpoint text collate "C" not null,
    primary key (day, message_id, handler, endpoint)
) partition by range (day);

-- Handled messages whose id says nothing about their age, or was older than the horizon when it came.
create table {schema}.inbox_misc (
    message_id uuid not null,
    handler text collate "C" not null,
    endpoint text collate "C" not null,
    at bigint not null,
    primary key (message_id, handler, endpoint)
) with (vacuum_truncate = false);
create index inbox_misc_at on {schema}.inbox_misc (at);

-- Messages on their way out over a transport that is not this database.
create table {schema}.outbox (
    id bigint generated always as identity (cache 1) primary key,
    endpoint text collate "C" not null,
    node uuid not null,                      -- the one who sends it
    topic boolean not null,                  -- to a topic, or to a queue
    destination text collate "C" not null,
    order_key text collate "C",
    headers text not null,
    body bytea not null
) with (vacuum_truncate = false, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0,
        autovacuum_analyze_threshold = 100000);
create index outbox_owner on {schema}.outbox (endpoint, node, id);
create index outbox_key on {schema}.outbox (endpoint, order_key, id) where order_key is not null;

-- The four tables of rows that are deliveries. The token changes when a row is moved.
create table {schema}.timer (
    id bigint generated always as identity primary key,
    token bigint not null default 1,
    endpoint text collate "C" not null,
    handler text collate "C" not null,
    shard smallint not null,
    due bigint not null,
    timer_id uuid not null,
    kind text collate "C",
    key text collate "C",
    instance uuid,
    message_type text collate "C" not null,
    headers text not null,
    body bytea not null
) with (vacuum_truncate = false, autovacuum_vacuum_scale_factor = 0.02);
create unique index timer_id on {schema}.timer (timer_id, endpoint);
create index timer_due on {schema}.timer (endpoint, due, id);
create index timer_saga on {schema}.timer (kind, key) where kind is not null;

create table {schema}.retry (
    id bigint generated always as identity primary key,
    token bigint not null default 1,
    endpoint text collate "C" not null,
    handler text collate "C" not null,
    shard smallint not null,
    due bigint not null,
    order_key text collate "C",              -- ordered endpoints: the key that stays blocked
    attempts integer not null,
    reason text not null,
    headers text not null,
    body bytea not null
) with (vacuum_truncate = false, autovacuum_vacuum_scale_factor = 0.02);
create index retry_due on {schema}.retry (endpoint, due, id);
create index retry_key on {schema}.retry (endpoint, handler, order_key) where order_key is not null;

create table {schema}.parked (
    id bigint generated always as identity primary key,
    token bigint not null default 1,
    endpoint text collate "C" not null,
    handler text collate "C" not null,
    shard smallint not null,
    due bigint not null,
    order_key text collate "C",              -- waits for its turn under this key
    kind text collate "C",                   -- or for this saga
    key text collate "C",
    attempts integer not null,
    headers text not null,
    body bytea not null
) with (vacuum_truncate = false, autovacuum_vacuum_scale_factor = 0.02);
create index parked_due on {schema}.parked (endpoint, due, id) where kind is not null;
create index parked_key on {schema}.parked (endpoint, handler, order_key, id) where order_key is not null;
create index parked_saga on {schema}.parked (kind, key) where kind is not null;

create table {schema}.dead_letter (
    id bigint generated always as identity primary key,
    token bigint not null default 1,
    endpoint text collate "C" not null,
    handler text collate "C" not null,       -- empty: no handler was found
    shard smallint not null,
    due bigint,                              -- set when an operator sent it again
    at bigint not null,
    attempts integer not null,
    reason text not null,
    detail text not null,                    -- the error and its causes: a JSON array
    headers text not null,
    body bytea not null
) with (vacuum_truncate = false);
create index dead_letter_due on {schema}.dead_letter (endpoint, due, id) where due is not null;
create index dead_letter_list on {schema}.dead_letter (endpoint, id);

-- Queues. A row's id is its queue's number, shifted by 45 bits, and a number from queue_seq: so one index serves both the
-- gate, which deletes by id, and the reader, who reads a queue in the order of its ids.
create sequence {schema}.queue_seq as bigint maxvalue 35184372088831 cache 1;
create table {schema}.queue (
    id bigint not null primary key,
    shard smallint not null,
    message_id uuid not null,
    headers text not null,
    body bytea not null
) with (vacuum_truncate = false, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0,
        autovacuum_analyze_threshold = 100000);

create table {schema}.queue_name (
    number integer generated always as identity (maxvalue 262143) primary key,
    name text collate "C" not null unique
) with (vacuum_truncate = false);

create table {schema}.subscription (
    topic text collate "C" not null,
    queue integer not null,
    primary key (topic, queue)
) with (vacuum_truncate = false);
create index subscription_queue on {schema}.subscription (queue);

-- Ids that queues have taken, so that a repeated send is recognised. Like inbox and inbox_misc.
create table {schema}.queue_dedup (
    day integer not null,
    message_id uuid not null,
    queue integer not null,
    primary key (day, message_id, queue)
) partition by range (day);

create table {schema}.queue_dedup_misc (
    message_id uuid not null,
    queue integer not null,
    at bigint not null,
    primary key (message_id, queue)
) with (vacuum_truncate = false);
create index queue_dedup_misc_at on {schema}.queue_dedup_misc (at);

-- Members of a group, and who owns which shard of its work.
create table {schema}.node (
    grp text collate "C" not null,
    node uuid not null,
    wants boolean not null,                  -- whether it wants shards
    ttl bigint not null,
    unbroken_since bigint not null,
    lease_until bigint not null,
    primary key (grp, node)
) with (vacuum_truncate = false, fillfactor = 50);

create table {schema}.shard (
    grp text collate "C" not null,
    shard smallint not null,
    node uuid,
    epoch bigint not null,
    primary key (grp, shard)
) with (vacuum_truncate = false, fillfactor = 50);

-- Failed attempts that were counted durably.
create table {schema}.attempt (
    message_id uuid not null,
    handler text collate "C" not null,
    endpoint text collate "C" not null,
    attempts integer not null,
    at bigint not null,
    primary key (message_id, handler, endpoint)
) with (vacuum_truncate = false);

-- A table without pages costs nothing to read as a whole, so the planner would, and a plan that was made then lives on
-- when the table has grown. So each has a page from the start, and vacuum never takes it away.
insert into {schema}.saga values ('', '', null, '00000000-0000-0000-0000-000000000000', 0, null, null, 0, 0, 0, '');
insert into {schema}.saga_alias values ('', '', '', '', '00000000-0000-0000-0000-000000000000');
insert into {schema}.inbox_misc values ('00000000-0000-0000-0000-000000000000', '', '', 0);
insert into {schema}.outbox (endpoint, node, topic, destination, headers, body)
    values ('', '00000000-0000-0000-0000-000000000000', false, '', '', '');
insert into {schema}.timer (endpoint, handler, shard, due, timer_id, message_type, headers, body)
    values ('', '', 0, 0, '00000000-0000-0000-0000-000000000000', '', '', '');
insert into {schema}.retry (endpoint, handler, shard, due, attempts, reason, headers, body)
    values ('', '', 0, 0, 0, '', '', '');
insert into {schema}.parked (endpoint, handler, shard, due, attempts, headers, body) values ('', '', 0, 0, 0, '', '');
insert into {schema}.dead_letter (endpoint, handler, shard, at, attempts, reason, detail, headers, body)
    values ('', '', 0, 0, 0, '', '', '', '');
insert into {schema}.queue values (0, 0, '00000000-0000-0000-0000-000000000000', '', '');
insert into {schema}.queue_name (name) values ('');
insert into {schema}.subscription values ('', 0);
insert into {schema}.queue_dedup_misc values ('00000000-0000-0000-0000-000000000000', 0, 0);
insert into {schema}.node values ('', '00000000-0000-0000-0000-000000000000', false, 0, 0, 0);
insert into {schema}.shard values ('', 0, null, 0);
insert into {schema}.attempt values ('00000000-0000-0000-0000-000000000000', '', '', 0, 0);
delete from {schema}.saga;
delete from {schema}.saga_alias;
delete from {schema}.inbox_misc;
delete from {schema}.outbox;
delete from {schema}.timer;
delete from {schema}.retry;
delete from {schema}.parked;
delete from {schema}.dead_letter;
delete from {schema}.queue;
delete from {schema}.queue_name;
delete from {schema}.subscription;
delete from {schema}.queue_dedup_misc;
delete from {schema}.node;
delete from {schema}.shard;
delete from {schema}.attempt;
