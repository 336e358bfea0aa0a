-- Version 3: finished instances by the time they finished, for retention.

-- They finish in the order of time, so that entries are added at the end of each status's part of the index and
-- taken away at its beginning.
create index instances_finished on instances (hub_no, status, completed_at) where completed_at is not null;
