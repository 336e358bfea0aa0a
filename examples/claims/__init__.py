"""Motor insurance claims, from the filing to the payment, written for production.

- `model`: the types of a claim, a decision, an outcome.
- `judgement`: the fraud score and the damage assessment, plain functions of a claim.
- `ledger`: the payments, each made once.
- `outbox`: messages to the adjuster and the customer, as files.
- `process`: the application, with the orchestrator, its activities and the route that files a claim.
- `source`: claims from a CSV file, or made up.
- `demo`: files, decides, pays and counts a thousand claims; run it with `python -m examples.claims.demo`.
"""

from examples.claims.process import app

__all__ = ["app"]
