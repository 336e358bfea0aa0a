"""Who may do what over HTTP, and the log of who did.

`gate` stands before every route and asks the others: `keys` knows the callers by what they show, `link_signer`
signs and checks the URLs that callers are handed, `sessions` keeps people signed in, `limits` slows down who asks too
much, `audit` writes down what was asked. The routes to all of this are in
`perdure.http.api` and `perdure.http.pages`.
"""
