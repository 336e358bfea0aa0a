-- Version 5: which keys a hub's content is encrypted with; none for a hub that is not.

-- `proof` is something encrypted with the key, by which a wrong one is told before anything is written.
create table encryption (
    hub_no integer not null,
    key_id text    not null,
    proof  blob    not null,
    primary key (hub_no, key_id)
) strict, without rowid;
