-- sagabus in one SQLite file. Times are microseconds since 1970 UTC by this database's clock; ids are 16-byte UUIDs;
-- headers are JSON. Look with: select hex(message_id), handler, reason from dead_letter;

create table sagabus_schema (version integer not null) strict;

-- One row per live saga, and per completed one that is kept for a time.
create table saga (
    kind text not null,                 -- endpoint/saga
    key text not null,                  -- the correlation value
    instance blob not null,             -- this life
    version integer not null,           -- how many units it has applied
    state blob not null,
    schema integer not null,            -- the version of the state's schema
    origin blob,                        -- who started it
    created_at integer not null,
    updated_at integer not null,
    completed_at integer,               -- null while it lives
    expires_at integer,                 -- when a completed one is dropped
    primary key (kind, key)
) strict, without rowid;
create index saga_expires on saga (expires_at) where expires_at is not null;

create table saga_alias (
    kind text not null,
    alias text not null,
    value text not null,
    key text not null,
    instance blob not null,             -- the life that added it
    primary key (kind, alias, value)
) strict, without rowid;
create index saga_alias_key on saga_alias (kind, key);

-- Handled messages, by the day that their UUIDv7 carries: dropped when that day is two horizons old.
create table inbox (
    day integer not null,
    endpoint text not null,
    handler text not null,
    message_id blob not null,
    primary key (day, endpoint, handler, message_id)
) strict, without rowid;

-- Handled messages whose id says nothing about their age, or was older than the horizon when it came.
create table inbox_misc (
    endpoint text not null,
    handler text not null,
    message_id blob not null,
    at integer not null,
    primary key (endpoint, handler, message_id)
) strict, without rowid;
create index inbox_misc_at on inbox_misc (at);

-- Messages on their way out over a transport that is not this database.
create table outbox (
    id integer primary key autoincrement,
    endpoint text not null,
    node blob not null,                 -- the one who sends it
    topic integer not null,             -- 1: to a topic, 0: to a queue
    destination text not null,
    order_key text,
    headers text not null,
    body blob not null
) strict;
create index outbox_owner on outbox (endpoint, node, id);
create index outbox_key on outbox (endpoint, order_key) where order_key is not null;

-- The four tables of rows that are deliveries. The token changes when a row is moved.
create table timer (
    id integer primary key autoincrement,
    token integer not null default 0,
    endpoint text not null,
    handler text not null,
    shard integer not null,
    due integer not null,
    timer_id blob not null,
    kind text,
    key text,
    instance blob,
    message_type text not null,
    headers text not null,
    body blob not null
) strict;
create unique index timer_id on timer (timer_id, endpoint);
create index timer_due on timer (endpoint, due, id, shard);
create index timer_saga on timer (kind, key) where kind is not null;

create table retry (
    id integer primary key autoincrement,
    token integer not null default 0,
    endpoint text not null,
    handler text not null,
    shard integer not null,
    due integer not null,
    order_key text,                     -- ordered endpoints: the key that stays blocked
    attempts integer not null,
    reason text not null,
    headers text not null,
    body blob not null
) strict;
create index retry_due on retry (endpoint, due, id, shard);
create index retry_key on retry (endpoint, handler, order_key) where order_key is not null;

create table parked (
    id integer primary key autoincrement,
    token integer not null default 0,
    endpoint text not null,
    handler text not null,
    shard integer not null,
    due integer,                        -- null: waits for its turn
    order_key text,                     -- waits for its turn under this key
    kind text,                          -- or for this saga
    key text,
    attempts integer not null,
    headers text not null,
    body blob not null
) strict;
create index parked_due on parked (endpoint, due, id, shard) where due is not null;
create index parked_key on parked (endpoint, handler, order_key, id) where order_key is not null;
create index parked_saga on parked (kind, key) where kind is not null;

create table dead_letter (
    id integer primary key autoincrement,
    token integer not null default 0,
    endpoint text not null,
    handler text not null,              -- empty: no handler was found
    shard integer not null,
    due integer,                        -- set when an operator sent it again
    at integer not null,
    attempts integer not null,
    reason text not null,
    detail text not null,               -- the error and its causes: a JSON array
    headers text not null,
    body blob not null
) strict;
create index dead_letter_due on dead_letter (endpoint, due, id, shard) where due is not null;
create index dead_letter_list on dead_letter (endpoint, id);

-- Queues. A row's owner is whoever holds its shard; deleting it is the gate.
create table queue (
    id integer primary key autoincrement,
    queue text not null,
    shard integer not null,
    message_id blob not null,
    headers text not null,
    body blob not null
) strict;
create index queue_read on queue (queue, id, shard);

create table queue_name (
    name text not null primary key
) strict, without rowid;

create table subscription (
    topic text not null,
    queue text not null,
    primary key (topic, queue)
) strict, without rowid;

-- What was put into a queue from outside of a unit, so that a repeated send is recognised. Like inbox and inbox_misc.
create table queue_dedup (
    day integer not null,
    queue text not null,
    message_id blob not null,
    primary key (day, queue, message_id)
) strict, without rowid;

create table queue_dedup_misc (
    queue text not null,
    message_id blob not null,
    at integer not null,
    primary key (queue, message_id)
) strict, without rowid;
create index queue_dedup_misc_at on queue_dedup_misc (at);

-- Members of a group, and who owns which shard of its work.
create table node (
    grp text not null,
    node blob not null,
    process text not null,              -- the lock file whose holder is this process
    wants integer not null,             -- whether it wants shards
    joined_at integer not null,
    unbroken_since integer not null,
    lease_until integer not null,
    gone integer not null default 0,    -- 1: the others have taken it for dead
    primary key (grp, node)
) strict, without rowid;

create table shard (
    grp text not null,
    shard integer not null,
    node blob,
    epoch integer not null,
    clean integer not null,             -- 0: the last owner did not give it up itself
    primary key (grp, shard)
) strict, without rowid;

-- Failed attempts that were counted durably.
create table attempt (
    endpoint text not null,
    handler text not null,
    message_id blob not null,
    attempts integer not null,
    at integer not null,
    primary key (endpoint, handler, message_id)
) strict, without rowid;

insert into sagabus_schema values (1);
