"""`python -m benchmarks.azure_prices`: the price of 10,000 claims in Azure Storage, on a disk, and in PostgreSQL.

The counts are those of `python -m benchmarks.azure_storage`. The prices are list prices of 2026 for East US, pay as
you go, as public notes and cost estimates quote them: none is from a bill, and none was read from Azure's own pages.
The price of the machine that runs perdure is in none of the figures, because it is the same for all stores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GB: Final = 1e9
HOURS: Final = 730  # of a month
MANY: Final = 10_000
VOLUMES: Final = (10_000, 100_000, 1_000_000)  # claims a month


@dataclass(frozen=True)
class Prices:
    """In dollars."""

    table_requests: float = 0.00036  # 10,000, of any kind; a transaction of several rows is one
    table_gb: float = 0.045  # a month, locally redundant
    blob_writes: float = 0.05  # 10,000, hot
    blob_gb: float = 0.0208  # a month, hot, locally redundant
    disk: float = 5.28  # a month: 32 GiB, Premium SSD P4
    postgres: float = 12.41 + 32 * 0.115  # a month: flexible server B1ms, 32 GiB


@dataclass(frozen=True)
class Counted:
    """What a claim of the example needs, from filing to payment."""

    requests: float
    written: int  # bytes of records
    snapshot: int  # bytes of a snapshot


ALONE: Final = Counted(requests=5.80, written=9_584, snapshot=3_187)  # one claim at a time
BUSY: Final = Counted(requests=0.32, written=3_077, snapshot=2_947)  # 300 at once
IDLE: Final = 0.25  # requests a second, at most
TRIM: Final = 1 / 100  # requests for a record that is deleted again
SNAPSHOTS: Final = 2  # that are kept


def azure(claims: int, counted: Counted, prices: Prices = Prices()) -> float:
    """A month with so many claims, all of which are kept. Every record is still there at its end."""
    asked = claims * (counted.requests + TRIM) + IDLE * HOURS * 3600
    stored = claims * counted.written / GB * prices.table_gb
    snapshots = SNAPSHOTS * claims * counted.snapshot / GB * prices.blob_gb
    saved = HOURS * prices.blob_writes / MANY  # one snapshot an hour
    return asked * prices.table_requests / MANY + stored + snapshots + saved


def rows(prices: Prices = Prices()) -> list[tuple[str, ...]]:
    """For each volume, the price of 10,000 claims in each store."""
    found = []
    for claims in VOLUMES:
        share = MANY / claims
        month = (azure(claims, BUSY), azure(claims, ALONE), prices.disk, prices.postgres)
        found.append((f"{claims:,}", *(f"${price * share:,.3f}" for price in month)))
    return found


HEADS: Final = (
    "claims a month",
    "Azure Storage, busy",
    "Azure Storage, one at a time",
    "SQLite: a disk",
    "PostgreSQL: the smallest server",
)


def shown() -> str:
    """The table of the documentation."""
    lines = [HEADS, ("---", *["---:"] * (len(HEADS) - 1)), *rows()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(shown())
