"""perdure over HTTP: an ASGI application, which turns requests into the verbs of `Client`.

From the top: `host` builds the application; `pages` are the routes for people; `api` those for programs, with the
status of an instance as JSON in both directions; `access` decides who may do what. `table` is the shape of every
route, so that access checks and the API's description are drawn from one table, and `routing` turns its rows into
routes. `remote` is the same `Client` at the other end. What serves sockets and processes is `perdure.server`.
"""
