-- Version 2: who may do what, and who has done it.

-- Few rows, read all at once. `secret` is a digest for keys that callers show, the secret itself for those
-- that links are signed with.
create table keys (
    hub_no       integer not null,
    key_id       text    not null,
    kind         text    not null,
    name         text    not null,
    scopes       text    not null,
    secret       blob    not null,
    created_at   integer not null,
    created_by   text    not null,
    expires_at   integer,
    revoked_at   integer,
    last_used_at integer,
    primary key (hub_no, key_id)
) strict, without rowid;

-- Written beside every management call, so without an index: it is read from its newest end.
create table audit (
    audit_no    integer primary key,
    hub_no      integer not null,
    at          integer not null,
    who         text    not null,
    address     text    not null,
    operation   text    not null,
    instance_id text    not null,
    detail      text    not null,
    outcome     text    not null,
    times       integer not null
) strict;
