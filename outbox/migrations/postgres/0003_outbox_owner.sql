-- With `id` itself in it, a planner that knows the table as empty may take this index for `id = any(…)`, and read all of it for
-- each id. An expression it only takes for what names it.
drop index {schema}.outbox_owner;
create index outbox_owner on {schema}.outbox (endpoint, node, (id + 0));
