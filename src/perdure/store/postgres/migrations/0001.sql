-- Version 1. Later versions are files beside this one, applied in order; none changes this one.
--
-- Hubs of one database know nothing of one another, their numbers included, so the hub is part of every key: at its
-- end. A plan is often made while a table is empty, when all ways through it look alike, and is kept; with no way to a
-- row but by what is asked for, it cannot be a bad one. (That is also why statements that look for rows by their keys
-- say `hub_no + 0`, which no index answers.) Only what is read for a whole hub, in some order, has indexes that begin
-- with it, and all of those are partial.
-- Numbers instead of text ids: a text id stands once, in `instances`, and an episode writes a few hundred bytes of log
-- instead of pages.
-- Nothing references anything: one transaction deletes children with their parent, and a check on every row of every
-- commit would pay for a mistake that tests find.
-- Points in time are microseconds since 1970. Ids are compared by their bytes, whatever the database's collation.

create table {schema}.hubs (
    hub_no     integer generated always as identity primary key,
    name       text not null unique,
    partitions bigint not null
);

-- Incarnations are never given twice, not even by a transaction that was rolled back.
create sequence {schema}.incarnations as bigint;

-- Raised when a commit does not find what it counts on, so that it fails as a whole: PD001 for rows that another has
-- changed, PD002 for an operation that another has accepted, PD003 for what collides within the batch.
create function {schema}.fail(state text, what text, found bigint, wanted bigint) returns boolean
language plpgsql as $$
begin
    raise exception using errcode = state, message = format('of %s %s %s are there', wanted, what, found);
end
$$;

-- One row per instance, rewritten by every episode: short, and without bodies. There is room on each page for its
-- rows' next versions: an episode that moves nothing indexed then touches no index.
create table {schema}.instances (
    hub_no           integer not null,
    instance_no      bigint not null,
    instance_id      text collate "C" not null,
    partition        bigint not null,
    kind             text not null,
    name             text not null,
    version          text not null,
    status           text not null,
    reason           text not null,
    execution_no     bigint not null,
    episodes         bigint not null,
    created_at       bigint not null,
    updated_at       bigint not null,
    completed_at     bigint,
    due_at           bigint,
    local_work       bigint not null,
    parent_id        text,
    parent_execution text,
    parent_task      bigint,
    tags             text,
    salt             bytea not null,
    head             bytea not null,
    constraint instances_pkey primary key (instance_no, hub_no),
    constraint instances_id unique (instance_id, hub_no)
) with (fillfactor = 80);

-- All others are partial: most instances are finished or asleep and stand in none of them.
create index instances_due on {schema}.instances (hub_no, partition, due_at, instance_no)       -- poll
    where due_at is not null;
create index instances_local on {schema}.instances (hub_no, instance_no) where local_work = 1;  -- recovery
create index instances_unfinished on {schema}.instances (hub_no, status, instance_no)           -- query, counts
    where completed_at is null;
create index instances_unhappy on {schema}.instances (hub_no, status, instance_no)              -- query, counts
    where status in ('Failed', 'Terminated', 'Canceled');
create index instances_parked on {schema}.instances (hub_no, instance_no)                       -- recovery
    where status in ('Suspended', 'Pending')
    and (substr(reason, 1, 9) = 'no_worker' or substr(reason, 1, 14) = 'nondeterminism');
create index instances_finished on {schema}.instances (hub_no, status, completed_at, instance_no)  -- retention
    where completed_at is not null;
create index instances_entities on {schema}.instances (hub_no, status) where kind = 'entity';   -- counts

-- One row per episode, never changed. An episode's rows are found through the primary key alone.
create table {schema}.history (
    hub_no       integer not null,
    instance_no  bigint not null,
    execution_no bigint not null,
    episode      bigint not null,
    at           bigint not null,
    events       bytea not null,
    digest       bytea not null,
    hash         bytea not null,
    constraint history_pkey primary key (instance_no, execution_no, episode, hub_no)
);

-- Large bodies, referred to by the events of one history row.
create table {schema}.payloads (
    hub_no       integer not null,
    instance_no  bigint not null,
    execution_no bigint not null,
    episode      bigint not null,
    no           bigint not null,
    body         bytea not null,
    constraint payloads_pkey primary key (instance_no, execution_no, episode, no, hub_no)
);

-- Written only when it changes, which most episodes do not do.
create table {schema}.state (
    hub_no        integer not null,
    instance_no   bigint not null,
    custom_status bytea,
    entity_state  bytea,
    constraint state_pkey primary key (instance_no, hub_no)
) with (fillfactor = 80);

-- Messages accepted and not yet consumed. visible_at is null while the target is suspended or parked. The partition
-- is the target's, which need not exist yet.
create table {schema}.inbox (
    hub_no      integer not null,
    message_no  bigint not null,
    instance_id text collate "C" not null,
    partition   bigint not null,
    visible_at  bigint,
    message     bytea not null,
    constraint inbox_pkey primary key (message_no, hub_no)
);

create index inbox_visible on {schema}.inbox (hub_no, partition, visible_at, message_no)  -- poll
    where visible_at is not null;
create index inbox_held on {schema}.inbox (instance_id, hub_no) where visible_at is null; -- load

-- Open waits for external events.
create table {schema}.waits (
    hub_no      integer not null,
    instance_no bigint not null,
    wait_id     bigint not null,
    name        text not null,
    since       bigint not null,
    deadline    bigint not null,
    schema      bytea,
    constraint waits_pkey primary key (instance_no, wait_id, hub_no)
);

create index waits_name on {schema}.waits (name, hub_no, instance_no);  -- who waits for a decision

-- Client operations accepted lately, with the answer they got.
create table {schema}.seen (
    hub_no       integer not null,
    operation_id text collate "C" not null,
    instance_id  text not null,
    answer       bytea not null,
    expires_at   bigint not null,
    constraint seen_pkey primary key (operation_id, hub_no)
);

create index seen_expiry on {schema}.seen (expires_at);

-- Messages accepted that could not be delivered, and why.
create table {schema}.dropped (
    hub_no       integer not null,
    dropped_no   bigint generated always as identity,
    instance_id  text collate "C" not null,
    at           bigint not null,
    kind         text not null,
    name         text not null,
    operation_id text not null,
    reason       text not null,
    body         bytea not null,
    constraint dropped_pkey primary key (dropped_no)
);

create index dropped_target on {schema}.dropped (instance_id, dropped_no);

-- Few rows, read all at once. `secret` is a digest for keys that callers show, the secret itself for those that links
-- are signed with.
create table {schema}.keys (
    hub_no       integer not null,
    key_id       text collate "C" not null,
    kind         text not null,
    name         text not null,
    scopes       text not null,
    secret       bytea not null,
    created_at   bigint not null,
    created_by   text not null,
    expires_at   bigint,
    revoked_at   bigint,
    last_used_at bigint,
    constraint keys_pkey primary key (key_id, hub_no)
);

-- Written beside every management call, so with one index only: it is read from its newest end.
create table {schema}.audit (
    hub_no      integer not null,
    audit_no    bigint generated always as identity,
    at          bigint not null,
    who         text not null,
    address     text not null,
    operation   text not null,
    instance_id text not null,
    detail      text not null,
    outcome     text not null,
    times       bigint not null,
    constraint audit_pkey primary key (audit_no)
);

-- Which keys a hub's content is encrypted with; none for a hub that is not. `proof` is something encrypted with the
-- key, by which a wrong one is told before anything is written.
create table {schema}.encryption (
    hub_no integer not null,
    key_id text not null,
    proof  bytea not null,
    constraint encryption_pkey primary key (key_id, hub_no)
);

-- Who serves a hub. A commit locks its own row here (for key share); a takeover locks it for update and voids it.
create table {schema}.workers (
    incarnation bigint not null,
    hub_no      integer not null,
    worker      text not null,
    role        text not null,
    pools       text not null,
    functions   text not null,
    state       text not null,
    started_at  bigint not null,
    lease_until bigint not null,
    constraint workers_pkey primary key (incarnation)
) with (fillfactor = 50);

-- Who owns which share of the hub's instances.
create table {schema}.partitions (
    hub_no      integer not null,
    partition   bigint not null,
    incarnation bigint,
    epoch       bigint not null,
    constraint partitions_pkey primary key (hub_no, partition)
) with (fillfactor = 50);

-- Open activities that any worker of their pool may claim.
create table {schema}.activities (
    hub_no       integer not null,
    instance_id  text collate "C" not null,
    execution_id text collate "C" not null,
    task_id      bigint not null,
    pool         text not null,
    name         text not null,
    placed_at    bigint not null,
    attempt      bigint not null,
    incarnation  bigint,
    invocation   bytea not null,
    constraint activities_pkey primary key (instance_id, execution_id, task_id, hub_no)
) with (fillfactor = 80);

create index activities_free on {schema}.activities (hub_no, pool, placed_at) where incarnation is null;     -- claim
create index activities_claimed on {schema}.activities (incarnation) where incarnation is not null;          -- void
