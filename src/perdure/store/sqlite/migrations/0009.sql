-- Version 9: the tasks of one person, due first. Only tasks that a person has claimed or is assigned have an entry.

create index waits_of_person on waits
    ((case holder when '' then assignee else holder end), (case deadline when 0 then 9223372036854775807 else deadline end), instance_no, wait_id)
    where holder <> '' or assignee <> '';
