-- The queries of the engine and of clients. Square brackets mark the part that is repeated for each value.

-- name: next_numbers
-- Numbers are unique in the file and not reused while rows with them may exist.
select coalesce((select max(instance_no) from instances), 0) + 1,
       coalesce((select max(message_no) from inbox), 0) + 1

-- name: hub_no
select hub_no from hubs where name = ?

-- name: add_hub
insert into hubs (name) values (?) returning hub_no

-- name: instances_by_id
select {instance_columns} from instances where hub_no = ? and instance_id in ([?])

-- name: instance_by_no
select {instance_columns} from instances where hub_no = ? and instance_no = ?

-- name: history_of_executions
-- The pairs drive: one index search each.
with v (instance_no, execution_no) as (values [(?, ?)])
select h.* from v cross join history h
where h.instance_no = v.instance_no and h.execution_no = v.execution_no

-- name: payloads_of_executions
with v (instance_no, execution_no) as (values [(?, ?)])
select p.* from v cross join payloads p
where p.instance_no = v.instance_no and p.execution_no = v.execution_no

-- name: payloads_of_episodes
with v (instance_no, execution_no, episode) as (values [(?, ?, ?)])
select p.* from v cross join payloads p
where p.instance_no = v.instance_no and p.execution_no = v.execution_no and p.episode = v.episode

-- name: ends_of_executions
-- The first and the last row of each.
with v (instance_no, execution_no) as (values [(?, ?)])
select h.* from v cross join history h
where h.instance_no = v.instance_no and h.execution_no = v.execution_no
and h.episode in (
    (select min(episode) from history a where a.instance_no = v.instance_no and a.execution_no = v.execution_no),
    (select max(episode) from history b where b.instance_no = v.instance_no and b.execution_no = v.execution_no)
)

-- name: held_messages
select message_no, instance_id, visible_at, message from inbox
where hub_no = ? and visible_at is null and instance_id in ([?])

-- name: seen
select operation_id, instance_id, answer, expires_at from seen where hub_no = ? and operation_id in ([?])

-- name: visible_messages
select message_no, instance_id, visible_at, message from inbox
where hub_no = ? and visible_at <= ? order by visible_at, message_no limit ?

-- name: next_visible_at
select min(visible_at) from inbox where hub_no = ? and visible_at > ?

-- name: due_instances
select due_at, instance_id from instances where hub_no = ? and due_at < ? order by due_at, instance_no limit ?

-- name: local_work
select instance_no, instance_id from instances
where hub_no = ? and local_work = 1 and instance_no > ? order by instance_no limit ?

-- name: parked
-- The first three lines repeat the condition of the index `instances_parked`, which must stay the same.
select instance_no, instance_id from instances
where status in ('Suspended', 'Pending')
and (substr(reason, 1, 9) = 'no_worker' or substr(reason, 1, 14) = 'nondeterminism')
and not (status = 'Pending' and substr(reason, 1, 14) = 'nondeterminism')
and hub_no = ? and instance_no > ? order by instance_no limit ?

-- name: finished
-- Through the index instances_finished, in its order.
select {instance_columns} from instances
where hub_no = ?1 and status = ?2 and completed_at < ?3
and completed_at >= ?4 and (completed_at, instance_no) > (?4, ?5) and kind = 'orchestration'
order by completed_at, instance_no limit ?6

-- name: waits_of
select * from waits where instance_no in ([?])

-- name: custom_status_of
select instance_no, custom_status from state where instance_no in ([?]) and custom_status is not null

-- name: entity_states_of
select instance_no, entity_state from state where instance_no in ([?]) and entity_state is not null

-- name: counts
-- Completed is the remainder, so that counting reads only narrow indexes, never the rows.
select status, count(*) from instances
where hub_no = ?1 and completed_at is null and status not in ('Failed', 'Terminated', 'Canceled') group by status
union all
select status, count(*) from instances
where hub_no = ?1 and status in ('Failed', 'Terminated', 'Canceled') group by status
union all
select '', count(*) from instances where hub_no = ?1
union all
select status, -count(*) from instances where hub_no = ?1 and kind = 'entity' group by status
union all
select '', -count(*) from instances where hub_no = ?1 and kind = 'entity'

-- name: oldest_unfinished
-- Numbers grow with time, so the first in the index is the oldest. Built-in ones, and those that wait for the time of
-- their start, may be as old as they like.
with v (status, created_at) as (
    select status, (
        select created_at from instances i
        where i.hub_no = ?1 and i.status = e.status and i.completed_at is null and i.kind = 'orchestration'
        and substr(i.name, 1, 9) <> 'BuiltIn::' and substr(i.reason, 1, 10) <> 'scheduled:'
        order by i.instance_no limit 1
    ) from (select 'Pending' as status union all select 'Running' union all select 'Suspended') e
)
select status, created_at from v where created_at is not null

-- name: waits_by_event
-- In the order of the index by name, so that grouping needs no memory.
select w.name, count(*) from waits w cross join instances i on i.instance_no = w.instance_no
where i.hub_no = ?1 group by w.name

-- name: ring
select worker, resolution, start, incarnation, value from main.ring
where hub_no = ? and resolution = ?

-- name: left_in_the_ring
-- The heads and hours: an engine that has the hub to itself goes on from all of them.
select worker, resolution, start, incarnation, value from ring where hub_no = ? and resolution in (0, 3600)

-- name: add_head
insert into ring (hub_no, worker, resolution, start, incarnation, value) values (?, ?, ?, ?, ?, ?)

-- name: parked_by_status
select status, count(*) from instances where hub_no = ? and kind is not 'entity' and {parked} group by status

-- name: dropped_all
-- By number, not through the index of the targets, which would have to be sorted.
select instance_id, at, kind, name, operation_id, reason, body from dropped
where +hub_no = ? order by dropped_no desc limit ?

-- name: dropped_of
select instance_id, at, kind, name, operation_id, reason, body from dropped
where hub_no = ? and instance_id = ? order by dropped_no desc limit ?

-- name: executions
-- A loose scan: from one execution to the next, however many rows each has.
with recursive e (execution_no) as (
    select min(execution_no) from history where instance_no = ?1
    union all
    select (select min(execution_no) from history where instance_no = ?1 and execution_no > e.execution_no)
    from e where e.execution_no is not null
)
select execution_no from e where execution_no is not null

-- name: keys
select key_id, kind, name, scopes, secret, created_at, created_by, expires_at, revoked_at, last_used_at
from keys where hub_no = ?

-- name: audit
select audit_no, at, who, address, operation, instance_id, detail, outcome, times from audit
where +hub_no = ?1 and (?2 is null or who = ?2) and (?3 is null or operation = ?3)
and (?4 is null or instance_id = ?4) and (?5 is null or at >= ?5) and audit_no < coalesce(?6, 9223372036854775807)
order by audit_no desc limit ?7

-- name: encryption_proofs
select key_id, proof from encryption where hub_no = ?

-- name: add_encryption_key
insert into encryption (hub_no, key_id, proof) values (?, ?, ?) on conflict do nothing

-- name: forget_encryption_keys
delete from encryption where hub_no = ? and key_id <> ?
