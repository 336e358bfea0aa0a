"""The client of a server in another process."""
