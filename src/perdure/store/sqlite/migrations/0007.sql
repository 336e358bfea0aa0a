-- Version 7: people's tasks are waits that describe themselves; who holds one is beside it.

alter table waits add column task blob;
alter table waits add column roles text not null default '';
alter table waits add column holder text not null default '';
alter table waits add column held_since integer not null default 0;
alter table waits add column assignee text not null default '';

-- A list of tasks: due first, those without a deadline last.
create index waits_due on waits
    ((case deadline when 0 then 9223372036854775807 else deadline end), instance_no, wait_id);
