"""Links for claimants: each opens the page of one claim, and no other page of the office.

A link is signed with a key that the server and the office share. It names the claim and carries no right to decide:
the page that it opens has no way to do so.
"""

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256


class Links:
    """Makes and checks links below the address of the office, "" if there is no office."""

    def __init__(self, base: str, key: bytes) -> None:
        self._base = base.rstrip("/")
        self._key = key

    def url_of(self, claim_id: str) -> str:
        """The link to a claim, or "" without an office."""
        return self._base and f"{self._base}{self.path_of(claim_id)}"

    def path_of(self, claim_id: str) -> str:
        """The path of a claim's page."""
        return f"/claim/{claim_id}/{self.signature_of('claim', claim_id)}"

    def opens(self, claim_id: str, signature: str) -> bool:
        """Whether the signature is that of the claim."""
        return hmac.compare_digest(self.signature_of("claim", claim_id).encode(), signature.encode())

    def signature_of(self, what: str, name: str) -> str:
        """The signature of a name, good for one kind of thing."""
        digest = hmac.digest(self._key, f"{what}\0{name}".encode(), sha256)
        return urlsafe_b64encode(digest[:18]).decode()
