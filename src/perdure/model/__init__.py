"""The data model: frozen values without I/O, clock, threads or logging."""
