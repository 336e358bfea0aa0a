"""Sockets and processes of the server.

`serving` runs an application in this process, in the loop of `event_loop`, behind `uvicorn_server` or as a worker
without an API. `workers` runs it in several processes under `supervision`, `reloading` in one process that restarts
when a file changes. `accept` accepts connections from a socket of `sockets`, `limits` bounds the time and size of
requests, and `forced_exit` ends a process that does not stop by itself. `perdure run` reads the settings and calls
these modules.
"""
