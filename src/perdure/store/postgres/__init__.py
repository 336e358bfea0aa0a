"""The PostgreSQL store. Needs the extra `postgres`."""
