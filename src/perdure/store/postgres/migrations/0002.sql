-- Version 2: how often an instance's code was recreated from its history, and why the last time.

alter table {schema}.instances
    add column replays bigint not null default 0,
    add column replay_reason text not null default '';
