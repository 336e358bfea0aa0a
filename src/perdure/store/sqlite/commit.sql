-- The statements of a commit, in its order. Square brackets mark the part that is repeated for each row; {hub} is the hub's
-- number. See statements.py.

-- name: hold_messages
-- Hide stored messages until their instance is resumed.
update inbox set visible_at = null where message_no in ([?])

-- name: remove_messages
-- Consumed messages. The number of deleted rows is the fence: see commit.py.
delete from inbox where message_no in ([?])

-- name: purge_instances
delete from instances where instance_no in ([?])

-- name: purge_history
delete from history where instance_no in ([?])

-- name: purge_payloads
delete from payloads where instance_no in ([?])

-- name: purge_state
delete from state where instance_no in ([?])

-- name: purge_waits
delete from waits where instance_no in ([?])

-- name: purge_activities
delete from activities where instance_no in ([?])

-- name: forget_dropped
delete from dropped where hub_no = {hub} and instance_id in ([?])

-- name: insert_instances
-- Fails if the hub already has the id.
insert into instances (hub_no, {instance_columns}) values [({hub}, {instance_marks})]

-- name: update_instances
-- The columns that every episode changes. None of them is in an index, so only rows are written.
with v (instance_no, execution_no, episodes, updated_at, head) as (values [(?, ?, ?, ?, ?)])
update instances
set execution_no = v.execution_no, episodes = v.episodes, updated_at = v.updated_at, head = v.head
from v where instances.instance_no = v.instance_no

-- name: update_instance
-- The same for one: without the list of rows, SQLite needs a third of the time.
update instances set execution_no = ?2, episodes = ?3, updated_at = ?4, head = ?5 where instance_no = ?1

-- name: move_instances
-- All columns, for the few episodes that change one of the others. SQLite rewrites the index entries of every
-- updated row, changed or not: leaving them out elsewhere halves the writes of a batch.
with v ({update_columns}) as (values [({update_marks})])
update instances
set status = v.status, reason = v.reason, execution_no = v.execution_no, episodes = v.episodes,
    updated_at = v.updated_at, completed_at = v.completed_at, due_at = v.due_at, local_work = v.local_work,
    head = v.head, replays = v.replays, replay_reason = v.replay_reason
from v where instances.instance_no = v.instance_no

-- name: move_instance
update instances
set status = ?2, reason = ?3, execution_no = ?4, episodes = ?5, updated_at = ?6, completed_at = ?7, due_at = ?8,
    local_work = ?9, head = ?10, replays = ?11, replay_reason = ?12
where instance_no = ?1

-- name: pin_versions
-- For a next execution with another version, or a start that was accepted before its code was known.
with v (instance_no, version) as (values [(?, ?)])
update instances set version = v.version from v where instances.instance_no = v.instance_no

-- name: insert_history
insert into history values [(?, ?, ?, ?, ?, ?, ?)]

-- name: insert_payloads
insert into payloads values [(?, ?, ?, ?, ?)]

-- name: put_custom_status
-- The last one wins if a batch has several for one instance.
insert into state (instance_no, custom_status) values [(?, ?)]
on conflict (instance_no) do update set custom_status = excluded.custom_status

-- name: put_entity_state
insert into state (instance_no, entity_state) values [(?, ?)]
on conflict (instance_no) do update set entity_state = excluded.entity_state

-- name: remove_history
-- Older executions of instances that continued as new.
with v (instance_no, below) as (values [(?, ?)])
delete from history where rowid in (
    select h.rowid from v cross join history h where h.instance_no = v.instance_no and h.execution_no < v.below
)

-- name: remove_payloads
with v (instance_no, below) as (values [(?, ?)])
delete from payloads where rowid in (
    select p.rowid from v cross join payloads p where p.instance_no = v.instance_no and p.execution_no < v.below
)

-- name: close_waits
with v (instance_no, wait_id) as (values [(?, ?)])
delete from waits where (instance_no, wait_id) in (select instance_no, wait_id from v)

-- name: close_all_waits
delete from waits where instance_no in ([?])

-- name: open_waits
insert into waits values [(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)]

-- name: update_tasks
-- Nothing happens to a wait that the same batch has closed.
with v (instance_no, wait_id, task, roles) as (values [(?, ?, ?, ?)])
update waits set task = v.task, roles = v.roles
from v where waits.instance_no = v.instance_no and waits.wait_id = v.wait_id

-- name: move_tasks
with v (instance_no, wait_id, holder, held_since, assignee) as (values [(?, ?, ?, ?, ?)])
update waits set holder = v.holder, held_since = v.held_since, assignee = v.assignee
from v where waits.instance_no = v.instance_no and waits.wait_id = v.wait_id

-- name: add_messages
insert into inbox (hub_no, message_no, instance_id, visible_at, message) values [({hub}, ?, ?, ?, ?)]

-- name: remember
-- An operation may be repeated after its answer has expired, even if the answer is not deleted yet.
insert into seen (hub_no, operation_id, instance_id, answer, expires_at) values [({hub}, ?, ?, ?, ?)]
on conflict (hub_no, operation_id) do update
set instance_id = excluded.instance_id, answer = excluded.answer, expires_at = excluded.expires_at
where seen.expires_at <= ?

-- name: drop_messages
insert into dropped (hub_no, instance_id, at, kind, name, operation_id, reason, body)
values [({hub}, ?, ?, ?, ?, ?, ?, ?)]

-- name: remove_heads
delete from ring where hub_no = {hub} and resolution = 0 and worker in ([?])

-- name: find_head
select ring_no from ring where hub_no = {hub} and worker = ? and resolution = 0 and start = 0

-- name: put_head
update ring set value = ? where ring_no = ?

-- name: put_ring
insert into ring (hub_no, worker, resolution, start, incarnation, value) values [({hub}, ?, ?, ?, ?, ?)]
on conflict (hub_no, worker, resolution, start) do update set value = excluded.value

-- name: put_keys
insert into keys values [({hub}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)]
on conflict (hub_no, key_id) do update
set name = excluded.name, scopes = excluded.scopes, expires_at = excluded.expires_at, revoked_at = excluded.revoked_at

-- name: use_keys
with v (key_id, at) as (values [(?, ?)])
update keys set last_used_at = v.at from v where keys.hub_no = {hub} and keys.key_id = v.key_id

-- name: add_audit
insert into audit (hub_no, at, who, address, operation, instance_id, detail, outcome, times)
values [({hub}, ?, ?, ?, ?, ?, ?, ?, ?)]

-- name: expire_seen
-- A bounded number at a time: a commit must stay short.
delete from seen where rowid in (select rowid from seen where expires_at <= ? order by expires_at limit ?)

-- name: expire_dropped
-- Rows are in the order of time, so the first few are enough.
delete from dropped where dropped_no in (
    select dropped_no from (select dropped_no, at from dropped order by dropped_no limit ?2) where at <= ?1
)

-- name: expire_ring
-- A few rows of each worker, so all at once.
delete from ring where hub_no = {hub} and resolution = ?1 and start < ?2

-- name: expire_audit
delete from audit where audit_no in (
    select audit_no from (select audit_no, at from audit order by audit_no limit ?2) where at <= ?1
)
