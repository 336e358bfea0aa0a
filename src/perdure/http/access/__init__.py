"""Access control over HTTP, and the audit log.

`gate` checks every request. `keys` authenticates callers, `link_signer` signs and checks the URLs that callers get,
`sessions` keeps people signed in, `limits` limits the rate of requests, and `audit` records them. The routes for all
of this are in `perdure.http.api` and `perdure.http.pages`.
"""
