"""Commands are tested against the application of the HTTP tests."""

from tests.http.conftest import app, http, local, remote, store

__all__ = ["app", "http", "local", "remote", "store"]
