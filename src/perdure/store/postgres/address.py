"""The address of a hub: the URL split into the driver's part and perdure's.

    postgresql://user:password@host:port/database?schema=perdure&pooler=session

`schema` and `pooler` are perdure's; all else goes unchanged to libpq, which has many more parameters (sslmode,
several hosts, sockets). Messages for people contain no user and no password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from perdure.errors import StoreUnusable

SCHEMA: Final = "perdure"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_POOLERS: Final = ("", "session")


@dataclass(frozen=True)
class Address:
    """`uri` is for libpq, and secret; `shown` is for people."""

    uri: str
    schema: str
    pooler: str
    shown: str


def address_of(url: str) -> Address:
    """Raises StoreUnusable for an invalid schema name, and for an unknown pooler."""
    try:
        parts = urlsplit(url)
    except ValueError:  # which may repeat the address with its password
        raise StoreUnusable(
            "the address of the database is malformed: write postgresql://user@host:port/database"
        ) from None
    beyond = parts.path + parts.fragment + parts.query.partition("=")[0]
    if parts.netloc.count("@") > 1 or ("@" in beyond and "@" not in parts.netloc):
        raise StoreUnusable(
            "the address of the database is malformed: in its password, write @ / ? and # as %40, %2F, %3F "
            "and %23"
        )
    base, _, query = url.partition("?")
    asked = parse_qsl(query, keep_blank_values=True)
    own = {name: value for name, value in asked if name in ("schema", "pooler")}
    rest = urlencode([(name, value) for name, value in asked if name not in own], quote_via=quote)
    schema, pooler = own.get("schema", SCHEMA), own.get("pooler", "")
    shown = f"postgresql://{base.partition('://')[2].rpartition('@')[2]} (schema {schema})"
    if _NAME.fullmatch(schema) is None or schema.startswith("pg_"):
        raise StoreUnusable(
            f"{schema!r} is not a valid schema name: use lower-case letters, digits and underscores"
        )
    if pooler not in _POOLERS:
        raise StoreUnusable(f"?pooler={pooler} is not supported: perdure supports only `session`")
    return Address(f"{base}?{rest}" if rest else base, schema, pooler, shown)


__all__ = ["SCHEMA", "Address", "address_of"]
