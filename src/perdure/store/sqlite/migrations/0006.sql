-- Version 6: how often an instance's code was recreated from its history.

alter table instances add column replays integer not null default 0;
