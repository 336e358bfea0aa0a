"""The pages of the server: routes for people."""
