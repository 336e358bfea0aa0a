"""The nouns: frozen values without I/O, clock, threads or logging."""
