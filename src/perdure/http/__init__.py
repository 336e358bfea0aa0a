"""The HTTP host: it translates requests into the verbs of `Client`, and nothing more.

`host` builds the application; `endpoint` is the shape of every route, so that access checks and an API
description can be drawn from one table; `management`, `functions` and `pages` hold the routes; `document`
is what a status looks like as JSON, in both directions; `remote` is the same `Client` at the other end.
"""
