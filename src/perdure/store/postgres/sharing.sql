-- The statements of workers that share a hub. {now} is the database's time in microseconds.

-- name: now
select {now}

-- name: next_incarnation
-- The last of so many: a worker may draw from the sequence, not set it.
select max(nextval('{schema}.incarnations')) from generate_series(1, $1::bigint)

-- name: end_own
-- Waits for a commit in progress, which locks the keys of the row.
select state from {schema}.workers where incarnation = any($1::bigint[]) and state <> 'void' for update

-- name: enter
with t as materialized (select {now} as now)
insert into {schema}.workers
    (incarnation, hub_no, worker, role, pools, functions, state, started_at, lease_until)
select $1::bigint, {hub}, $2::text, $3::text, $4::text, $5::text, $6::text, now, now + $7::bigint from t
returning started_at

-- name: void_own
-- Voids incarnations, and moves their claims and partitions to the successor $2, or frees them if it is null.
with ended as (
    update {schema}.workers set state = 'void'
    where incarnation = any($1::bigint[]) and state <> 'void' returning incarnation
), claims as (
    update {schema}.activities set incarnation = $2::bigint where incarnation in (select incarnation from ended)
)
update {schema}.partitions
set incarnation = $2::bigint, epoch = epoch + case when $2::bigint is null then 0 else 1 end
where hub_no = {hub} and incarnation in (select incarnation from ended) returning partition

-- name: lock_expired
select 1 from {schema}.workers
where hub_no = {hub} and incarnation = $1::bigint and state <> 'void' and lease_until <= {now} for update

-- name: void_all
-- For an exclusive engine: no other worker can be in a transaction.
update {schema}.workers set state = 'void' where hub_no = {hub} and state <> 'void'

-- name: free_claims
update {schema}.activities set incarnation = null where hub_no = {hub} and incarnation > 0

-- name: free_partitions
update {schema}.partitions set incarnation = null where hub_no = {hub} and incarnation is not null

-- name: renew
-- None of these columns is a key, so a commit's lock on the row does not block it.
update {schema}.workers set lease_until = {now} + $2::bigint
where incarnation = $1::bigint and state <> 'void' returning 1

-- name: expire
update {schema}.workers set lease_until = least(lease_until, {now})
where hub_no = {hub} and incarnation = any($1::bigint[]) and state <> 'void'

-- name: drain
update {schema}.workers set state = 'draining' where incarnation = $1::bigint and state = 'living'

-- name: workers
select {worker_columns} from {schema}.workers where hub_no = {hub} and state <> 'void' order by incarnation

-- name: partitions
select partition, incarnation, epoch from {schema}.partitions where hub_no = {hub} order by partition

-- name: take
update {schema}.partitions set incarnation = $1::bigint, epoch = epoch + 1
where hub_no = {hub} and partition = any($2::bigint[]) and incarnation is null returning partition

-- name: claims
-- Without their content.
select instance_id, execution_id, task_id, pool, name, placed_at, attempt, incarnation, ''::bytea
from {schema}.activities where hub_no = {hub} and incarnation = $1::bigint

-- name: unclaim
update {schema}.activities a set incarnation = null
from {rows: $1 instance_id text, $2 execution_id text, $3 task_id bigint}
where a.hub_no + 0 = {hub} and a.instance_id = v.instance_id and a.execution_id = v.execution_id
and a.task_id = v.task_id and a.incarnation = $4::bigint

-- name: claim
-- Each pool's oldest through the index, skipping those that another worker is claiming.
with oldest as (
    select a.instance_id, a.execution_id, a.task_id from unnest($2::text[]) as mine (pool)
    cross join lateral (
        select f.instance_id, f.execution_id, f.task_id, f.placed_at from {schema}.activities f
        where f.hub_no = {hub} and f.pool = mine.pool and f.incarnation is null and f.name = any($3::text[])
        order by f.placed_at limit $4::bigint for update skip locked
    ) a
    order by a.placed_at, a.instance_id, a.execution_id, a.task_id limit $4::bigint
)
update {schema}.activities a set incarnation = $1::bigint, attempt = a.attempt + 1 from oldest o
where a.hub_no + 0 = {hub} and a.instance_id = o.instance_id and a.execution_id = o.execution_id and a.task_id = o.task_id
returning {claimed_columns}
