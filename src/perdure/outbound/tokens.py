"""Bearer tokens of the machine's managed identity on Azure, from App Service or a virtual machine.

The two addresses belong to the platform and do not come from a caller, so no policy applies to them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import httpx2

from perdure.errors import HttpCallError

MACHINE = "http://169.254.169.254/metadata/identity/oauth2/token"
MARGIN = 300.0  # seconds before its expiry at which a token is replaced
TOKEN_WITHIN = 10.0  # seconds


class ManagedIdentity:
    """Gets tokens and caches each until shortly before it expires."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._kept: dict[str, tuple[str, float]] = {}

    async def __call__(self, resource: str) -> str:
        """Return the token for a resource. Raises HttpCallError if there is no managed identity."""
        token, until = self._kept.get(resource, ("", 0.0))
        if time.time() < until - MARGIN:
            return token
        token, until = await self._ask(resource)
        self._kept[resource] = token, until
        return token

    async def _ask(self, resource: str) -> tuple[str, float]:
        endpoint, proof = (self._environment.get(name) for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER"))
        if endpoint and proof:
            url, version, headers = endpoint, "2019-08-01", {"X-IDENTITY-HEADER": proof}
        else:
            url, version, headers = MACHINE, "2018-02-01", {"Metadata": "true"}
        asked = {"api-version": version, "resource": resource}
        if client := self._environment.get("AZURE_CLIENT_ID"):
            asked["client_id"] = client
        try:
            async with httpx2.AsyncClient(trust_env=False, timeout=TOKEN_WITHIN) as http:
                answer = await http.get(url, params=asked, headers=headers)
            body = answer.raise_for_status().json()
            return str(body["access_token"]), float(body["expires_on"])
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            raise HttpCallError(
                f"the managed identity returned no token for {resource!r} ({type(error).__name__}). On a machine "
                "without a managed identity, set HttpPolicy.tokens"
            ) from None
