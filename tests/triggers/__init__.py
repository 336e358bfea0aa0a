"""Client functions that a clock or a queue calls."""
