"""The client of a hub and its parts."""
