-- Version 4: the ring, which counts instances by status, and what happened in each minute and hour.

-- Few rows, and short ones. A batch that changes a count rewrites one of them, the head of its worker; so there is room
-- on each page for their next versions.
create table {schema}.ring (
    hub_no      integer not null,
    worker      text not null,
    resolution  bigint not null,
    start       bigint not null,
    incarnation bigint not null,
    value       bytea not null,
    constraint ring_pkey primary key (worker, resolution, start, hub_no)
) with (fillfactor = 50);
