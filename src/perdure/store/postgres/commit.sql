-- The statements of a commit, one per table. {schema} and {hub} are filled in when a connection prepares them.
-- A batch travels as one array per column, so a text fits any number of rows; see binary.py.

-- name: fence
-- The row of this worker's incarnation. KEY SHARE allows a renewal of the lease and makes a takeover wait, or fail.
with own as (
    select from {schema}.workers where incarnation = $1::bigint and state <> 'void' for key share
)
select case when count(*) <> 1 then {schema}.fail('PD001', 'living incarnations', count(*), 1) end from own

-- name: refuse
-- Reports a conflict within the batch itself at its place, so that the order of errors stays the same.
select {schema}.fail('PD003', 'distinct ids of new instances or operations', 0, 1)

-- name: hold_messages
-- Hide stored messages until their instance is resumed.
with held as (
    update {schema}.inbox m set visible_at = null from {rows: $1 message_no bigint}
    where m.hub_no + 0 = {hub} and m.message_no = v.message_no returning 1
)
select case when count(*) <> $2::bigint then {schema}.fail('PD001', 'messages to hold', count(*), $2::bigint) end
from held

-- name: remove_messages
-- Consumed messages.
with gone as (
    delete from {schema}.inbox m using {rows: $1 message_no bigint}
    where m.hub_no + 0 = {hub} and m.message_no = v.message_no returning 1
)
select case when count(*) <> $2::bigint then {schema}.fail('PD001', 'consumed messages', count(*), $2::bigint) end
from gone

-- name: purge_activities
-- Before the instances, which know the ids.
delete from {schema}.activities a using {rows: $1 instance_no bigint}, {schema}.instances i
where i.hub_no + 0 = {hub} and i.instance_no = v.instance_no
and a.hub_no + 0 = {hub} and a.instance_id = i.instance_id

-- name: purge_instances
delete from {schema}.instances t using {rows: $1 instance_no bigint}
where t.hub_no + 0 = {hub} and t.instance_no = v.instance_no

-- name: purge_history
delete from {schema}.history t using {rows: $1 instance_no bigint}
where t.hub_no + 0 = {hub} and t.instance_no = v.instance_no

-- name: purge_payloads
delete from {schema}.payloads t using {rows: $1 instance_no bigint}
where t.hub_no + 0 = {hub} and t.instance_no = v.instance_no

-- name: purge_state
delete from {schema}.state t using {rows: $1 instance_no bigint}
where t.hub_no + 0 = {hub} and t.instance_no = v.instance_no

-- name: purge_waits
delete from {schema}.waits t using {rows: $1 instance_no bigint}
where t.hub_no + 0 = {hub} and t.instance_no = v.instance_no

-- name: forget_dropped
delete from {schema}.dropped d using {rows: $1 instance_id text}
where d.hub_no + 0 = {hub} and d.instance_id = v.instance_id

-- name: insert_instances
-- Fails if the hub already has the id.
insert into {schema}.instances (hub_no, {instance_columns})
select {hub}, * from unnest({instance_arrays})

-- name: update_instances
-- The columns that episodes change. An unchanged column costs nothing here: the row's indexes
-- are not written when none of their values differs.
with changed as (
    update {schema}.instances i
    set status = v.status, reason = v.reason, execution_no = v.execution_no, episodes = v.episodes,
        updated_at = v.updated_at, completed_at = v.completed_at, due_at = v.due_at, local_work = v.local_work,
        head = v.head, replays = v.replays, replay_reason = v.replay_reason
    from {update_rows}
    where i.hub_no + 0 = {hub} and i.instance_no = v.instance_no
    returning 1
)
select case when count(*) <> $13::bigint
    then {schema}.fail('PD001', 'instances to update', count(*), $13::bigint) end
from changed

-- name: pin_versions
-- For a next execution with another version, or a start that was accepted before its code was known.
update {schema}.instances i set version = v.version
from {rows: $1 instance_no bigint, $2 version text}
where i.hub_no + 0 = {hub} and i.instance_no = v.instance_no

-- name: insert_history
insert into {schema}.history (hub_no, instance_no, execution_no, episode, at, events, digest, hash)
select {hub}, * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[])

-- name: insert_payloads
insert into {schema}.payloads (hub_no, instance_no, execution_no, episode, no, body)
select {hub}, * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])

-- name: put_custom_status
insert into {schema}.state (hub_no, instance_no, custom_status)
select {hub}, * from unnest($1::bigint[], $2::bytea[])
on conflict (hub_no, instance_no) do update set custom_status = excluded.custom_status

-- name: put_entity_state
insert into {schema}.state (hub_no, instance_no, entity_state)
select {hub}, * from unnest($1::bigint[], $2::bytea[])
on conflict (hub_no, instance_no) do update set entity_state = excluded.entity_state

-- name: remove_history
-- Older executions of instances that continued as new.
delete from {schema}.history h using {rows: $1 instance_no bigint, $2 below bigint}
where h.hub_no + 0 = {hub} and h.instance_no = v.instance_no and h.execution_no < v.below

-- name: remove_payloads
delete from {schema}.payloads p using {rows: $1 instance_no bigint, $2 below bigint}
where p.hub_no + 0 = {hub} and p.instance_no = v.instance_no and p.execution_no < v.below

-- name: close_waits
delete from {schema}.waits w using {rows: $1 instance_no bigint, $2 wait_id bigint}
where w.hub_no + 0 = {hub} and w.instance_no = v.instance_no and w.wait_id = v.wait_id

-- name: close_all_waits
delete from {schema}.waits t using {rows: $1 instance_no bigint}
where t.hub_no + 0 = {hub} and t.instance_no = v.instance_no

-- name: open_waits
insert into {schema}.waits (hub_no, {wait_names}) select {hub}, * from unnest({wait_arrays})

-- name: update_tasks
-- Nothing happens to a wait that the same batch has closed.
update {schema}.waits w set task = v.task, roles = v.roles
from {rows: $1 instance_no bigint, $2 wait_id bigint, $3 task bytea, $4 roles text}
where w.hub_no + 0 = {hub} and w.instance_no = v.instance_no and w.wait_id = v.wait_id

-- name: move_tasks
update {schema}.waits w set holder = v.holder, held_since = v.held_since, assignee = v.assignee
from {rows: $1 instance_no bigint, $2 wait_id bigint, $3 holder text, $4 held_since bigint, $5 assignee text}
where w.hub_no + 0 = {hub} and w.instance_no = v.instance_no and w.wait_id = v.wait_id

-- name: add_messages
insert into {schema}.inbox (hub_no, message_no, instance_id, visible_at, message, partition)
select {hub}, * from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bytea[], $5::bigint[])

-- name: remember
-- An operation may be repeated after its answer has expired, even if the answer is not deleted yet.
with kept as (
    insert into {schema}.seen as s (hub_no, operation_id, instance_id, answer, expires_at)
    select {hub}, * from unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[])
    on conflict (hub_no, operation_id) do update
    set instance_id = excluded.instance_id, answer = excluded.answer, expires_at = excluded.expires_at
    where s.expires_at <= $5::bigint
    returning 1
)
select case when count(*) <> $6::bigint then {schema}.fail('PD002', 'new operations', count(*), $6::bigint) end
from kept

-- name: drop_messages
insert into {schema}.dropped (hub_no, instance_id, at, kind, name, operation_id, reason, body)
select {hub}, * from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[])

-- name: put_keys
insert into {schema}.keys (hub_no, {key_columns}) select {hub}, * from unnest({key_arrays})
on conflict (hub_no, key_id) do update
set name = excluded.name, scopes = excluded.scopes, expires_at = excluded.expires_at, revoked_at = excluded.revoked_at

-- name: use_keys
update {schema}.keys k set last_used_at = v.at from {rows: $1 key_id text, $2 at bigint}
where k.hub_no + 0 = {hub} and k.key_id = v.key_id

-- name: add_audit
insert into {schema}.audit (hub_no, at, who, address, operation, instance_id, detail, outcome, times)
select {hub}, * from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[])

-- name: remove_heads
-- Another worker may have taken them over first.
with gone as (
    delete from {schema}.ring where hub_no + 0 = {hub} and worker = any($1::text[]) and resolution = 0 returning 1
)
select case when count(*) <> $2::bigint
    then {schema}.fail('PD002', 'heads of the ring', count(*), $2::bigint) end
from gone

-- name: put_head
insert into {schema}.ring (hub_no, worker, resolution, start, incarnation, value)
values ({hub}, $1::text, 0, 0, $2::bigint, $3::bytea)
on conflict (worker, resolution, start, hub_no) do update set value = excluded.value

-- name: put_ring
insert into {schema}.ring (hub_no, {ring_columns}) select {hub}, * from unnest({ring_arrays})
on conflict (worker, resolution, start, hub_no) do update set value = excluded.value

-- name: remove_activities
delete from {schema}.activities a
using {rows: $1 instance_id text, $2 execution_id text, $3 task_id bigint}
where a.hub_no + 0 = {hub} and a.instance_id = v.instance_id and a.execution_id = v.execution_id and a.task_id = v.task_id

-- name: remove_executions
delete from {schema}.activities a using {rows: $1 instance_id text, $2 execution_id text}
where a.hub_no + 0 = {hub} and a.instance_id = v.instance_id and a.execution_id = v.execution_id

-- name: place_activities
insert into {schema}.activities (hub_no, {activity_columns}) select {hub}, * from unnest({activity_arrays})

-- name: take_results
-- A result counts while the claim is valid; the inserted rows show how many did. Its activity is answered from
-- then on, marked by 0: its owner removes it with the message, and does not run it again before.
with ended as (
    update {schema}.activities a set incarnation = 0
    from {rows: $1 instance_id text, $2 execution_id text, $3 task_id bigint, $4 attempt bigint, $5 message_no bigint, $6 message bytea, $7 partition bigint}
    where a.hub_no + 0 = {hub} and a.instance_id = v.instance_id and a.execution_id = v.execution_id
    and a.task_id = v.task_id and a.attempt = v.attempt and a.incarnation = $8::bigint
    returning v.message_no, v.instance_id, v.partition, v.message
)
insert into {schema}.inbox (hub_no, message_no, instance_id, partition, visible_at, message)
select {hub}, message_no, instance_id, partition, $9::bigint, message from ended

-- name: release_partitions
update {schema}.partitions set incarnation = null
where hub_no = {hub} and partition = any($1::bigint[]) and incarnation = $2::bigint
