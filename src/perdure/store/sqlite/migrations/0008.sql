-- Version 8: the ring, which counts instances by status, and what happened in each minute and hour.

-- Few rows, and short ones. A batch that changes a count rewrites one of them, the head of its engine, by its number:
-- that costs a third of finding it through the other key.
create table ring (
    ring_no     integer primary key,
    hub_no      integer not null,
    worker      text    not null,
    resolution  integer not null,
    start       integer not null,
    incarnation integer not null,
    value       blob    not null,
    unique (hub_no, worker, resolution, start)
) strict;
