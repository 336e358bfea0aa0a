"""The functional core: turns messages into one batch, without threads, clock or store."""
