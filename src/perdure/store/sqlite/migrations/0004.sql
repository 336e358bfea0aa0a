-- Version 4: entities are found and counted apart from orchestrations.

create index instances_entities on instances (hub_no, status) where kind = 'entity';
