"""The pages of the claims office: a web application of its own, and a client of the server.

- `room`: what the pages share: the client of the server, people, links, photos, the addresses of the services.
- `pages`: templates, security headers, who may see the staff's pages.
- `claimant`: file a claim in three steps, and the page behind the link: status, upload, another account.
- `standing`: what a claimant reads about a claim, as a function of where it is.
- `board`, `figures`: the manager's numbers.
- `dossier`: one claim on one page, from its histories.
- `stage`: stories, switches and the red button.
- `office`: all routes together.

A module has its pages in `ROUTES`, and `office` adds them up; no module of pages knows another one.
"""
