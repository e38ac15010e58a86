-- As with outbox_owner: what looks for single rows finds one index to ask and no other one to choose, however empty the
-- planner believes the table to be. So an index that is read in its order names its columns by expressions, which only what
-- reads in that order names, too; and no index has a condition that a search for single rows implies, because then the
-- index as a whole is a choice.
drop index {schema}.saga_alias_key;
create index saga_alias_key on {schema}.saga_alias (key);
drop index {schema}.saga_alias_parked;
create index saga_alias_parked on {schema}.saga_alias ((alias || '=' || value));
drop index {schema}.timer_due;
create index timer_due on {schema}.timer ((endpoint || ''), due, (id + 0));
drop index {schema}.timer_saga;
create index timer_saga on {schema}.timer (kind, key);
drop index {schema}.retry_due;
create index retry_due on {schema}.retry ((endpoint || ''), due, (id + 0));
drop index {schema}.parked_due;
create index parked_due on {schema}.parked ((endpoint || ''), due, (id + 0)) where order_key is null;
drop index {schema}.parked_saga;
create index parked_saga on {schema}.parked (kind, key);
drop index {schema}.dead_letter_due;
create index dead_letter_due on {schema}.dead_letter ((endpoint || ''), due, (id + 0)) where due is not null;
drop index {schema}.dead_letter_list;
create index dead_letter_list on {schema}.dead_letter ((endpoint || ''), (id + 0));
