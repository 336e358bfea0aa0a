"""A storage account: where its tables and blobs are, and how requests to it prove who asks.

A connection string has an account key or a shared access signature, and the hosts of Azure Functions know a third
form: settings such as `AzureWebJobsStorage__accountName`, for which the identity of the machine is asked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from perdure.errors import StoreUnusable, needing
from perdure.store.log.port import Unknown

SETTING: Final = "AzureWebJobsStorage"
_SCOPE: Final = "https://storage.azure.com/.default"
_EMULATOR: Final = "devstoreaccount1"
_EMULATOR_KEY: Final = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_EARLY: Final = 300.0  # seconds before a token ends at which another one is asked for
_AGAIN: Final = 5.0  # seconds until a failed renewal is tried again
_NO_IDENTITY: Final = ("ClientAuthenticationError", "CredentialUnavailableError")
"""Errors of azure-identity that another attempt does not mend."""

Sign = Callable[[str, str, dict[str, str]], str]
"""Adds headers for a verb and an URL; returns the query to append to the URL, "" for none."""


@dataclass(frozen=True)
class Account:
    """A storage account. The endpoints have no slash at their end."""

    name: str
    tables: str
    blobs: str
    sign_table: Sign = field(repr=False)
    sign_blob: Sign = field(repr=False)


def account_of(settings: Mapping[str, str], name: str = SETTING) -> Account:
    """The account of a setting, as Azure Functions reads it. Raises StoreUnusable, ExtraMissing."""
    text = settings.get(name, "").strip()
    if text:
        return _of_connection_string(text, name)
    prefix = f"{name}__"
    found = {key[len(prefix) :]: value for key, value in settings.items() if key.startswith(prefix)}
    if not found.keys() & {"accountName", "tableServiceUri", "blobServiceUri"}:
        raise StoreUnusable(
            f"the store azure: needs the setting {name}: the connection string of a storage account, or "
            f"{name}__accountName for the identity of this machine"
        )
    return _of_identity(found, name)


def _of_connection_string(text: str, setting: str) -> Account:
    if text.rstrip(";").lower() == "usedevelopmentstorage=true":
        text = (
            f"AccountName={_EMULATOR};AccountKey={_EMULATOR_KEY};"
            f"TableEndpoint=http://127.0.0.1:10002/{_EMULATOR};BlobEndpoint=http://127.0.0.1:10000/{_EMULATOR}"
        )
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    parts = {key.strip().lower(): value.strip() for key, _, value in pairs}
    if not all(separator for _, separator, _ in pairs):
        raise StoreUnusable(f"{setting} is no connection string: copy it from the access keys of the account")
    name = parts.get("accountname", "")
    tables, blobs = (_endpoint(parts, kind, name) for kind in ("table", "blob"))
    if not tables or not blobs:
        raise StoreUnusable(
            f"{setting} names no account: it needs AccountName, or TableEndpoint and BlobEndpoint"
        )
    for endpoint in (tables, blobs):
        _demand_address(endpoint, setting)
    if parts.get("sharedaccesssignature"):
        sas = parts["sharedaccesssignature"].lstrip("?")
        return Account(name or _host_name(tables), tables, blobs, _signature(sas), _signature(sas))
    key = _key(parts.get("accountkey", ""), setting)
    if not name:
        raise StoreUnusable(f"{setting} has an AccountKey and no AccountName: requests are signed with both")
    return Account(name, tables, blobs, _table_key(name, key), _blob_key(name, key))


def _endpoint(parts: Mapping[str, str], kind: str, name: str) -> str:
    given = parts.get(f"{kind}endpoint", "")
    if given or not name:
        return given.rstrip("/")
    protocol = parts.get("defaultendpointsprotocol", "https")
    return f"{protocol}://{name}.{kind}.{parts.get('endpointsuffix', 'core.windows.net')}"


def _demand_address(endpoint: str, setting: str) -> None:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StoreUnusable(
            f"{setting} names the endpoint {endpoint!r}: it must begin with https:// and a host name. Check "
            "DefaultEndpointsProtocol, TableEndpoint and BlobEndpoint"
        )


def _host_name(endpoint: str) -> str:
    return (urlsplit(endpoint).hostname or "").partition(".")[0]


def _key(text: str, setting: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise StoreUnusable(
            f"{setting} has no valid AccountKey and no SharedAccessSignature: copy the connection string from the "
            "access keys of the account"
        )
    return key


# ------------------------------------------------------------------------------------------------- signing


def _signature(sas: str) -> Sign:
    return lambda verb, url, headers: sas


def _table_key(name: str, key: bytes) -> Sign:
    def sign(verb: str, url: str, headers: dict[str, str]) -> str:
        parts = urlsplit(url)
        comp = dict(parse_qsl(parts.query)).get("comp")
        resource = f"/{name}{parts.path}" + (f"?comp={comp}" if comp else "")
        headers["Authorization"] = (
            f"SharedKeyLite {name}:{_mac(key, headers['x-ms-date'] + chr(10) + resource)}"
        )
        return ""

    return sign


_SIGNED: Final = (
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-MD5",
    "Content-Type",
    "Date",
)
_CONDITIONS: Final = ("If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range")


def _blob_key(name: str, key: bytes) -> Sign:
    def sign(verb: str, url: str, headers: dict[str, str]) -> str:
        parts = urlsplit(url)
        length = headers.get("Content-Length", "")
        plain = {**headers, "Content-Length": "" if length == "0" else length}
        lines = [verb, *(plain.get(one, "") for one in (*_SIGNED, *_CONDITIONS))]
        lines += [
            f"{one.lower()}:{headers[one]}"
            for one in sorted(headers, key=str.lower)
            if one.startswith("x-ms-")
        ]
        lines.append(f"/{name}{parts.path}")
        asked = sorted(parse_qsl(parts.query, keep_blank_values=True))
        lines += [f"{one.lower()}:{value}" for one, value in asked]
        headers["Authorization"] = f"SharedKey {name}:{_mac(key, chr(10).join(lines))}"
        return ""

    return sign


def _mac(key: bytes, text: str) -> str:
    return base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()


# ------------------------------------------------------------------------------------------------ identity


def _of_identity(found: Mapping[str, str], setting: str) -> Account:
    name = found.get("accountName", "")
    tables = found.get("tableServiceUri", "") or f"https://{name}.table.core.windows.net"
    blobs = found.get("blobServiceUri", "") or f"https://{name}.blob.core.windows.net"
    if not name and not {"tableServiceUri", "blobServiceUri"} <= found.keys():
        raise StoreUnusable(
            f"{setting}__tableServiceUri and {setting}__blobServiceUri are needed both, or __accountName"
        )
    for endpoint in (tables, blobs):
        _demand_address(endpoint, setting)
    sign = Tokens(_credential(found)).sign
    return Account(name or _host_name(tables), tables.rstrip("/"), blobs.rstrip("/"), sign, sign)


def _credential(found: Mapping[str, str]) -> Any:
    with needing("azure", "the identity of this machine"):
        from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
    client = found.get("clientId")
    if found.get("credential", "").lower() == "managedidentity":
        return ManagedIdentityCredential(client_id=client)
    return DefaultAzureCredential(managed_identity_client_id=client)


class Tokens:
    """Asks for a token once an hour. From any thread.

    A token that has not ended yet is used while its renewal fails.
    """

    def __init__(self, credential: Any) -> None:
        self._credential = credential
        self._lock = threading.Lock()
        self._token, self._renewed_at, self._ends_at = "", 0.0, 0.0

    def sign(self, verb: str, url: str, headers: dict[str, str]) -> str:
        del verb, url
        with self._lock:
            if time.monotonic() >= self._renewed_at:
                self._renew()
            headers["Authorization"] = f"Bearer {self._token}"
        return ""

    def _renew(self) -> None:
        """Raises Unknown when the identity cannot be asked now, StoreUnusable when there is none."""
        now = time.monotonic()
        try:
            found = self._credential.get_token(_SCOPE)
        except Exception as error:  # a credential of any kind, with errors of its own
            if now < self._ends_at:
                self._renewed_at = now + _AGAIN
                return
            if type(error).__name__ in _NO_IDENTITY:
                raise StoreUnusable(f"the identity of this machine gives no token: {error}") from error
            raise Unknown(f"the identity of this machine: {type(error).__name__} {error}", _AGAIN) from error
        lasts = found.expires_on - time.time_ns() / 1e9
        self._token, self._ends_at = found.token, now + lasts
        self._renewed_at = now + max(lasts - _EARLY, lasts / 2)


__all__ = ["SETTING", "Account", "Tokens", "account_of"]
