-- Version 3: people's tasks are waits that describe themselves; who holds one is beside it.

alter table {schema}.waits
    add column task bytea,
    add column roles text not null default '',
    add column holder text not null default '',
    add column held_since bigint not null default 0,
    add column assignee text not null default '';

-- A list of tasks: due first, those without a deadline last.
create index waits_due on {schema}.waits
    (hub_no, (case deadline when 0 then 9223372036854775807 else deadline end), instance_no, wait_id);
