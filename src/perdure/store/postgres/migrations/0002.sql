-- Version 2: how often an instance's code was recreated from its history.

alter table {schema}.instances add column replays bigint not null default 0;
