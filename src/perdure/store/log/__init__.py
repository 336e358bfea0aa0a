"""A hub in a log: a prepared replica in SQLite, and a shared log whose records are the commits."""
