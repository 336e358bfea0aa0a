"""Motor insurance claims, from the filing to the payment. README.md says how the parts fit."""

from examples.claims.process import app

__all__ = ["app"]
