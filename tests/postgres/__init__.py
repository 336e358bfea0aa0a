"""The hub on PostgreSQL: real servers, and the means to break them and what lies between them and a worker."""
