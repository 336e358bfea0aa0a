"""What serves sockets and processes.

`serving` runs an application in this process, behind `uvicorn_server` or as a worker without an API; `workers` runs
it in several processes under `supervision`, and `reloading` in one that restarts when a file changes. `accept` takes
connections from a socket of `sockets`, `limits` says how long a client may take, and `forced_exit` ends a process
that does not end by itself. `perdure run` reads the settings and calls these.
"""
