"""The SQLite store. `store.py` is the entry point; `schema.sql` documents the tables."""
