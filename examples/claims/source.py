"""Claims to file: from a CSV file with the columns of the public "Auto Insurance Claims Data", or generated.

That data set (Mendeley Data, doi 10.17632/992mh7dk9y) has a thousand claims. `?` means unknown, dates are
day-month-year. Generated claims have the same columns, and are the same in each run.
"""

import csv
import random
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

from examples.claims.model import Claim, Vehicle

Row = dict[str, str]
DATES = "%d-%m-%Y"


def claims_of(rows: Iterable[Row]) -> Iterator[Claim]:
    """Rows as claims; a claim's id comes from its policy, so that the same row is the same claim."""
    for row in rows:
        yield Claim(
            claim_id=f"claim-{row['policy_number']}",
            policy_bound=_date(row["policy_bind_date"]),
            deductible=int(row["policy_deductable"]),
            umbrella_limit=int(row["umbrella_limit"]),
            happened=_date(row["incident_date"]),
            kind=row["incident_type"],
            severity=row["incident_severity"],
            authority=None if row["authorities_contacted"] in ("None", "?") else row["authorities_contacted"],
            police_report={"YES": True, "NO": False}.get(row["police_report_available"]),
            bodily_injuries=int(row["bodily_injuries"]),
            witnesses=int(row["witnesses"]),
            injury_amount=int(row["injury_claim"]),
            property_amount=int(row["property_claim"]),
            vehicle_amount=int(row["vehicle_claim"]),
            vehicle=Vehicle(row["auto_make"], row["auto_model"], int(row["auto_year"])),
        )


def rows_of(path: Path) -> list[Row]:
    """The rows of a CSV file. Raises ValueError when it lacks columns."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in next(made_up(1)) if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} lacks the columns {', '.join(missing)}")
        return list(reader)


def made_up(count: int, seed: int = 7071) -> Iterator[Row]:
    """Rows that resemble real ones in the columns that the process uses. The first has by far the largest amount."""
    rng = random.Random(seed)
    for number in range(count):
        total = 118_000 if number == 0 else _total(rng)
        injury, other = int(total * rng.uniform(0.0, 0.2)), int(total * rng.uniform(0.05, 0.15))
        happened = date(2026, 1, 1) + timedelta(days=rng.randrange(60))
        make, model = rng.choice(_CARS)
        yield {
            "policy_number": str(100_000 + number),
            "policy_bind_date": (happened - timedelta(days=rng.randrange(60, 9_000))).strftime(DATES),
            "policy_deductable": rng.choice(("500", "1000", "2000")),
            "umbrella_limit": "5000000" if rng.random() < 0.2 else "0",
            "incident_date": happened.strftime(DATES),
            "incident_type": rng.choices(_KINDS, (42, 40, 9, 9))[0],
            "incident_severity": "Total Loss"
            if number == 0
            else rng.choices(_SEVERITIES, (35, 28, 28, 9))[0],
            "authorities_contacted": rng.choices(_AUTHORITIES, (29, 22, 20, 20, 9))[0],
            "police_report_available": rng.choices(("YES", "NO", "?"), (31, 35, 34))[0],
            "bodily_injuries": rng.choice("01"),
            "witnesses": rng.choices("0123", (29, 26, 25, 20))[0],
            "injury_claim": str(injury),
            "property_claim": str(other),
            "vehicle_claim": str(total - injury - other),
            "auto_make": make,
            "auto_model": model,
            "auto_year": str(rng.randrange(1998, 2026)),
        }


def _total(rng: random.Random) -> int:
    return round(rng.uniform(1_000, 9_000) if rng.random() < 0.5 else rng.gauss(60_000, 13_000)) + 2_000


def _date(text: str) -> date:
    return datetime.strptime(text, DATES).date()


_KINDS = ("Multi-vehicle Collision", "Single Vehicle Collision", "Vehicle Theft", "Parked Car")
_SEVERITIES = ("Minor Damage", "Total Loss", "Major Damage", "Trivial Damage")
_AUTHORITIES = ("Police", "Fire", "Ambulance", "Other", "None")
_CARS = (
    ("Saab", "95"),
    ("Dodge", "Neon"),
    ("Nissan", "Maxima"),
    ("Ford", "Escape"),
    ("Volkswagen", "Passat"),
)
