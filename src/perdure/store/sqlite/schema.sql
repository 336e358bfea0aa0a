-- Schema, version 1. Later versions are files in migrations/, applied in order; none changes this one.
--
-- Integer keys: a text id stands once, in `instances`; everything else refers to instance_no, so that the
-- rows of one instance lie together and an episode writes a few hundred bytes of log instead of pages.
-- Numbers (instance_no, message_no) are unique over the file, which may hold several hubs.
-- Nothing references anything: one writer deletes children with their parent, and a check on every row
-- of every commit would pay for a mistake that tests find.
-- Points in time are microseconds since 1970.

create table hubs (
    hub_no integer primary key,
    name   text not null unique
) strict;

-- One row per instance, rewritten by every episode: short, and without bodies.
create table instances (
    instance_no      integer primary key,
    hub_no           integer not null,
    instance_id      text    not null,
    partition        integer not null,
    kind             text    not null,
    name             text    not null,
    version          text    not null,
    status           text    not null,
    reason           text    not null,
    execution_no     integer not null,
    episodes         integer not null,
    created_at       integer not null,
    updated_at       integer not null,
    completed_at     integer,
    due_at           integer,
    local_work       integer not null,
    parent_id        text,
    parent_execution text,
    parent_task      integer,
    tags             text,
    salt             blob    not null,
    head             blob    not null,
    unique (hub_no, instance_id)
) strict;

-- All others are partial: most instances are finished or asleep and stand in none of them. The rowid ends
-- every entry, so each is in the order of instance_no where its columns are equal. (completed_at, always null
-- in instances_unfinished, lets counting read the index alone.)
create index instances_due on instances (hub_no, due_at) where due_at is not null;           -- poll
create index instances_local on instances (hub_no) where local_work = 1;                     -- recovery
create index instances_unfinished on instances (hub_no, status, completed_at)                -- query, counts
    where completed_at is null;
create index instances_unhappy on instances (hub_no, status)                                 -- query, counts
    where status in ('Failed', 'Terminated', 'Canceled');
create index instances_parked on instances (hub_no)                                          -- recovery
    where status in ('Suspended', 'Pending')
    and (substr(reason, 1, 9) = 'no_worker' or substr(reason, 1, 14) = 'nondeterminism');
create index instances_children on instances (hub_no, parent_id) where parent_id is not null;

-- One row per episode, never changed. Rows lie in the order of their arrival, found through the primary key's
-- narrow index: 500 episodes of 500 live instances then share 50 pages of log instead of dirtying two pages
-- each (measured: 3.7 against 25 ms for such a batch). Reading an old history back costs more; that is rare.
create table history (
    instance_no  integer not null,
    execution_no integer not null,
    episode      integer not null,
    at           integer not null,
    events       blob    not null,
    digest       blob    not null,
    hash         blob    not null,
    primary key (instance_no, execution_no, episode)
) strict;

-- Large bodies, referred to by the events of one history row.
create table payloads (
    instance_no  integer not null,
    execution_no integer not null,
    episode      integer not null,
    no           integer not null,
    body         blob    not null,
    primary key (instance_no, execution_no, episode, no)
) strict;

-- Written only when it changes, which most episodes do not do.
create table state (
    instance_no   integer primary key,
    custom_status blob,
    entity_state  blob
) strict;

-- Messages accepted and not yet consumed. visible_at is null while the target is suspended or parked.
create table inbox (
    message_no  integer primary key,
    hub_no      integer not null,
    instance_id text    not null,
    visible_at  integer,
    message     blob    not null
) strict;

create index inbox_visible on inbox (hub_no, visible_at) where visible_at is not null;  -- poll
create index inbox_target on inbox (hub_no, instance_id);                               -- load, purge

-- Open waits for external events.
create table waits (
    instance_no integer not null,
    wait_id     integer not null,
    name        text    not null,
    since       integer not null,
    deadline    integer not null,
    schema      blob,
    primary key (instance_no, wait_id)
) strict, without rowid;

create index waits_name on waits (name, since);  -- who waits for a decision

-- Client operations accepted lately, with the answer they got.
create table seen (
    hub_no       integer not null,
    operation_id text    not null,
    instance_id  text    not null,
    answer       blob    not null,
    expires_at   integer not null,
    primary key (hub_no, operation_id)
) strict;

create index seen_expiry on seen (expires_at);

-- Messages accepted that could not be delivered, and why.
create table dropped (
    dropped_no   integer primary key,
    hub_no       integer not null,
    instance_id  text    not null,
    at           integer not null,
    kind         text    not null,
    name         text    not null,
    operation_id text    not null,
    reason       text    not null,
    body         blob    not null
) strict;

create index dropped_target on dropped (hub_no, instance_id);

-- For several workers on one hub: empty while one engine has the file to itself, and here already so that
-- the format need not change when it has not.
create table activities (
    instance_no  integer not null,
    execution_no integer not null,
    task_id      integer not null,
    pool         text    not null,
    attempt      integer not null,
    worker       text,
    lease_until  integer,
    input        blob,    -- the input itself, or null when
    input_no     integer, -- it is this row of `payloads`
    primary key (instance_no, execution_no, task_id)
) strict, without rowid;

create index activities_free on activities (pool, lease_until);

create table workers (
    hub_no      integer not null,
    worker      text    not null,
    incarnation integer not null,
    lease_until integer not null,
    primary key (hub_no, worker)
) strict, without rowid;

create table partitions (
    hub_no    integer not null,
    partition integer not null,
    worker    text,
    epoch     integer not null,
    primary key (hub_no, partition)
) strict, without rowid;
