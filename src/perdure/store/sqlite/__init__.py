"""The SQLite store. `store.py` is the way in; `schema.sql` says what there is and why."""
