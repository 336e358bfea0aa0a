"""perdure over HTTP: an ASGI application that maps requests to the methods of `Client`.

`host` builds the application. `pages` has the routes for people, `api` those for programs, with the status of an
instance as JSON in both directions. `access` authenticates callers and checks their scopes. `table` describes every
route, so that access checks and the API's description come from one table, and `routing` turns its rows into routes.
`remote` is the same `Client` on the other side of the connection. Sockets and processes are in `perdure.server`.
"""
