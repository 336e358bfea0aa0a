"""One file for each engine: each runs as a process of its own, in its own environment."""
