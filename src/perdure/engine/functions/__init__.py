"""The registered functions, and how each is called."""
