-- Version 6: how often an instance's code was recreated from its history, and why the last time.

alter table instances add column replays integer not null default 0;
alter table instances add column replay_reason text not null default '';
