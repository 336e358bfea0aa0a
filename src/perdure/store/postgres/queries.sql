-- The queries of the engine and of clients. {schema} and {hub} are filled in when a connection prepares them.
-- Conditions that look odd (`hub_no + 0`, `kind || ''`, `offset 0`) keep a plan that was made for empty tables from going
-- through a whole index, partial ones included, whose condition they would otherwise fulfil: see the schema.

-- name: next_numbers
-- Numbers of an exclusively opened hub; workers that share a hub have ranges of their own.
select coalesce((select max(instance_no) from {schema}.instances where hub_no = {hub}), 0) + 1,
       coalesce((select max(message_no) from {schema}.inbox where hub_no = {hub}), 0) + 1

-- name: hub
select hub_no::bigint, partitions from {schema}.hubs where name = $1::text

-- name: hubs
select name from {schema}.hubs order by name

-- name: add_hub
insert into {schema}.hubs (name, partitions) values ($1::text, $2::bigint) on conflict (name) do nothing

-- name: add_partitions
insert into {schema}.partitions (hub_no, partition, epoch)
select h.hub_no, p, 0 from {schema}.hubs h, generate_series(0, h.partitions - 1) p where h.name = $1::text
on conflict do nothing

-- name: instances_by_id
select {instance_columns_i} from {rows: $1 instance_id text}
join {schema}.instances i on i.hub_no + 0 = {hub} and i.instance_id = v.instance_id
order by i.instance_no

-- name: instance_by_no
select {instance_columns} from {schema}.instances where hub_no + 0 = {hub} and instance_no = $1::bigint

-- name: histories_by_id
-- Of unfinished orchestrations, the current execution; so are the bodies.
select {history_columns} from {rows: $1 instance_id text}
join {schema}.instances i on i.hub_no + 0 = {hub} and i.instance_id = v.instance_id
join {schema}.history h
on h.hub_no + 0 = {hub} and h.instance_no = i.instance_no and h.execution_no = i.execution_no
where coalesce(i.completed_at, -1) = -1 and i.kind <> 'entity'

-- name: bodies_by_id
select {body_columns} from {rows: $1 instance_id text}
join {schema}.instances i on i.hub_no + 0 = {hub} and i.instance_id = v.instance_id
join {schema}.payloads p
on p.hub_no + 0 = {hub} and p.instance_no = i.instance_no and p.execution_no = i.execution_no
where coalesce(i.completed_at, -1) = -1 and i.kind <> 'entity'

-- name: held_by_id
select m.* from {rows: $1 instance_id text}
cross join lateral (
    select message_no, instance_id, visible_at, message from {schema}.inbox h
    where h.hub_no + 0 = {hub} and h.instance_id = v.instance_id and h.visible_at is null offset 0
) m
order by m.message_no

-- name: entity_states_by_id
select i.instance_no, s.entity_state from {rows: $1 instance_id text}
join {schema}.instances i on i.hub_no + 0 = {hub} and i.instance_id = v.instance_id
join {schema}.state s on s.hub_no + 0 = {hub} and s.instance_no = i.instance_no
where i.kind || '' = 'entity' and s.entity_state is not null

-- name: placed_by_id
select a.instance_id, a.execution_id, a.task_id from {rows: $1 instance_id text}
join {schema}.activities a on a.hub_no + 0 = {hub} and a.instance_id = v.instance_id

-- name: placed_rows
-- Without their content.
select a.instance_id, a.execution_id, a.task_id, a.pool, a.name, a.placed_at, a.attempt, a.incarnation, ''::bytea
from {rows: $1 instance_id text}
join {schema}.activities a on a.hub_no + 0 = {hub} and a.instance_id = v.instance_id

-- name: history_of_one
-- Of an instance by its id, the current execution, whether it has finished or not; so are the bodies.
select {history_columns} from {schema}.instances i
join {schema}.history h
on h.hub_no + 0 = {hub} and h.instance_no = i.instance_no and h.execution_no = i.execution_no
where i.hub_no + 0 = {hub} and i.instance_id = $1::text order by h.episode

-- name: bodies_of_one
select {body_columns} from {schema}.instances i
join {schema}.payloads p
on p.hub_no + 0 = {hub} and p.instance_no = i.instance_no and p.execution_no = i.execution_no
where i.hub_no + 0 = {hub} and i.instance_id = $1::text

-- name: waits_of_one
select {wait_columns} from {schema}.waits w
join {schema}.instances i on w.hub_no + 0 = {hub} and w.instance_no = i.instance_no
where i.hub_no + 0 = {hub} and i.instance_id = $1::text order by w.wait_id

-- name: state_of_one
select s.custom_status, s.entity_state from {schema}.instances i
join {schema}.state s on s.hub_no + 0 = {hub} and s.instance_no = i.instance_no
where i.hub_no + 0 = {hub} and i.instance_id = $1::text

-- name: history_of_execution
select {history_columns} from {schema}.history h
where h.hub_no + 0 = {hub} and h.instance_no = $1::bigint and h.execution_no = $2::bigint order by h.episode

-- name: bodies_of_execution
select {body_columns} from {schema}.payloads p
where p.hub_no + 0 = {hub} and p.instance_no = $1::bigint and p.execution_no = $2::bigint

-- name: ends_of_executions
-- The first and the last row of each.
select {history_columns} from unnest($1::bigint[], $2::bigint[]) as v (instance_no, execution_no)
cross join lateral (
    (select * from {schema}.history a
     where a.hub_no + 0 = {hub} and a.instance_no = v.instance_no and a.execution_no = v.execution_no
     order by a.episode limit 1)
    union
    (select * from {schema}.history b
     where b.hub_no + 0 = {hub} and b.instance_no = v.instance_no and b.execution_no = v.execution_no
     order by b.episode desc limit 1)
) h
order by h.instance_no, h.episode

-- name: bodies_of_ends
select {body_columns} from unnest($1::bigint[], $2::bigint[]) as v (instance_no, execution_no)
cross join lateral (
    select min(episode) as first, max(episode) as last from {schema}.history a
    where a.hub_no + 0 = {hub} and a.instance_no = v.instance_no and a.execution_no = v.execution_no
) e
join {schema}.payloads p
on p.hub_no + 0 = {hub} and p.instance_no = v.instance_no and p.execution_no = v.execution_no
and p.episode in (e.first, e.last)

-- name: seen
select s.operation_id, s.instance_id, s.answer, s.expires_at from {rows: $1 operation_id text}
join {schema}.seen s on s.hub_no + 0 = {hub} and s.operation_id = v.operation_id

-- name: visible_messages
-- Each partition's oldest through the index, then the oldest of these.
select message_no, instance_id, visible_at, message from unnest($1::bigint[]) as own (partition)
cross join lateral (
    select message_no, instance_id, visible_at, message from {schema}.inbox m
    where m.hub_no = {hub} and m.partition = own.partition and m.visible_at <= $2::bigint
    order by m.visible_at, m.message_no limit $3::bigint
) m
order by visible_at, message_no limit $3::bigint

-- name: next_visible_at
select min(m.visible_at) from unnest($1::bigint[]) as own (partition)
cross join lateral (
    select visible_at from {schema}.inbox m
    where m.hub_no = {hub} and m.partition = own.partition and m.visible_at > $2::bigint
    order by m.visible_at limit 1
) m

-- name: due_instances
select due_at, instance_id from unnest($1::bigint[]) as own (partition)
cross join lateral (
    select due_at, instance_no, instance_id from {schema}.instances i
    where i.hub_no = {hub} and i.partition = own.partition and i.due_at < $2::bigint
    order by i.due_at, i.instance_no limit $3::bigint
) i
order by due_at, instance_no limit $3::bigint

-- name: local_work
select instance_no, instance_id from {schema}.instances
where hub_no = {hub} and local_work = 1 and partition = any($1::bigint[]) and instance_no > $2::bigint
order by instance_no limit $3::bigint

-- name: parked
-- The first lines repeat the condition of the index `instances_parked`, which must stay the same.
select instance_no, instance_id from {schema}.instances
where status in ('Suspended', 'Pending')
and (substr(reason, 1, 9) = 'no_worker' or substr(reason, 1, 14) = 'nondeterminism')
and not (status = 'Pending' and substr(reason, 1, 14) = 'nondeterminism')
and hub_no = {hub} and partition = any($1::bigint[]) and instance_no > $2::bigint
order by instance_no limit $3::bigint

-- name: finished
-- Through the index instances_finished, in its order.
select {instance_columns} from {schema}.instances
where hub_no = {hub} and status = $1::text and completed_at < $2::bigint
and completed_at >= $3::bigint and (completed_at, instance_no) > ($3::bigint, $4::bigint) and kind = 'orchestration'
order by completed_at, instance_no limit $5::bigint

-- name: waits_of
select {wait_columns} from {rows: $1 instance_no bigint}
join {schema}.waits w on w.hub_no + 0 = {hub} and w.instance_no = v.instance_no order by w.instance_no, w.wait_id

-- name: custom_status_of
select s.instance_no, s.custom_status from {rows: $1 instance_no bigint}
join {schema}.state s on s.hub_no + 0 = {hub} and s.instance_no = v.instance_no where s.custom_status is not null

-- name: entity_state_of
select s.instance_no, s.entity_state from {rows: $1 instance_no bigint}
join {schema}.state s on s.hub_no + 0 = {hub} and s.instance_no = v.instance_no where s.entity_state is not null

-- name: counts
-- Each row once, through one of two indexes, and entities once more.
select status, count(*) from {schema}.instances where hub_no = {hub} and completed_at is null group by status
union all
select status, count(*) from {schema}.instances where hub_no = {hub} and completed_at is not null group by status
union all
select status, -count(*) from {schema}.instances where hub_no = {hub} and kind = 'entity' group by status

-- name: oldest_unfinished
-- Numbers grow with time, so the first in the index is the oldest. Built-in ones, and those that wait for the time of
-- their start, may be as old as they like.
select v.status, i.created_at from (values ('Pending'), ('Running'), ('Suspended')) v (status)
cross join lateral (
    select created_at from {schema}.instances
    where hub_no = {hub} and status = v.status and completed_at is null and kind = 'orchestration'
    and left(name, 9) <> 'BuiltIn::' and left(reason, 10) <> 'scheduled:'
    order by instance_no limit 1
) i

-- name: waits_by_event
select name, count(*) from {schema}.waits where hub_no = {hub} group by name

-- name: size_on_disk
select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and n.nspname = '{schema}'

-- name: ring
select {ring_columns} from {schema}.ring where hub_no = {hub} and resolution = $1::bigint order by worker, start

-- name: left_in_the_ring
-- The heads and hours of this worker, and of those that are void.
select {ring_columns} from {schema}.ring r
where hub_no = {hub} and resolution in (0, 3600)
and (worker = $1::text or not exists (
    select from {schema}.workers w where w.hub_no = {hub} and w.incarnation = r.incarnation and w.state <> 'void'
))

-- name: fill_ring
-- For a schema of an earlier version: one statement, so that no instance is counted here and in a worker's head.
insert into {schema}.ring (hub_no, {ring_columns})
select {hub}, '', 0, 0, 0, convert_to(json_build_object('statuses', json_object_agg(key, count))::text, 'UTF8')
from (
    select case when status in ({statuses}) then status else 'Suspended' end
        || case when {parked} then '/parked' else '' end as key, count(*)
    from {schema}.instances where hub_no = {hub} and kind <> 'entity' group by 1
) counted
where not exists (select from {schema}.ring where hub_no = {hub} and resolution = 0)
having count(*) > 0
on conflict (worker, resolution, start, hub_no) do nothing

-- name: clear_heads
delete from {schema}.ring where hub_no = {hub} and resolution = 0

-- name: expire_ring
delete from {schema}.ring where hub_no = {hub} and resolution = $1::bigint and start < $2::bigint

-- name: dropped_all
select {dropped_columns} from {schema}.dropped
where hub_no = {hub} order by dropped_no desc limit $1::bigint

-- name: dropped_of
select {dropped_columns} from {schema}.dropped
where hub_no + 0 = {hub} and instance_id = $2::text order by dropped_no + 0 desc limit $1::bigint

-- name: executions
-- A loose scan: from one execution to the next, however many rows each has.
with recursive e (execution_no) as (
    (select execution_no from {schema}.history
     where hub_no + 0 = {hub} and instance_no = $1::bigint order by execution_no limit 1)
    union all
    select (select h.execution_no from {schema}.history h
            where h.hub_no + 0 = {hub} and h.instance_no = $1::bigint and h.execution_no > e.execution_no
            order by h.execution_no limit 1)
    from e where e.execution_no is not null
)
select execution_no from e where execution_no is not null

-- name: keys
select {key_columns} from {schema}.keys where hub_no = {hub}

-- name: audit
select audit_no, {audit_columns} from {schema}.audit
where hub_no = {hub} and ($1::text is null or who = $1) and ($2::text is null or operation = $2)
and ($3::text is null or instance_id = $3) and ($4::bigint is null or at >= $4)
and audit_no < coalesce($5::bigint, 9223372036854775807)
order by audit_no desc limit $6::bigint

-- name: encryption_proofs
select key_id, proof from {schema}.encryption where hub_no = {hub}

-- name: add_encryption_key
insert into {schema}.encryption (hub_no, key_id, proof) values ({hub}, $1::text, $2::bytea) on conflict do nothing

-- name: forget_encryption_keys
delete from {schema}.encryption where hub_no = {hub} and key_id <> $1::text

-- name: expire_seen
-- A bounded number at a time, so that other statements do not wait long.
delete from {schema}.seen where (operation_id, hub_no) in (
    select operation_id, hub_no from {schema}.seen
    where hub_no + 0 = {hub} and expires_at <= $1::bigint order by expires_at limit $2::bigint for update skip locked
)

-- name: expire_dropped
-- Rows are in the order of time, so the first few are enough.
delete from {schema}.dropped where dropped_no in (
    select dropped_no from (
        select dropped_no, at from {schema}.dropped where hub_no = {hub} order by dropped_no limit $2::bigint
    ) oldest where at <= $1::bigint
)

-- name: expire_audit
delete from {schema}.audit where audit_no in (
    select audit_no from (
        select audit_no, at from {schema}.audit where hub_no = {hub} order by audit_no limit $2::bigint
    ) oldest where at <= $1::bigint
)

-- name: expire_workers
delete from {schema}.workers where hub_no = {hub} and state = 'void' and lease_until <= $1::bigint
