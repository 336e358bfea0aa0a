"""A bank: it pays each idempotency key once. `ledger` has the book, `service` the HTTP."""
