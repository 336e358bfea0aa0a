"""What a claimant fills in: three steps of one form, checked, and a claim in the end.

The answers of earlier steps travel as hidden fields: the office keeps nothing of a claim that is not sent.
"""

import hmac
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from typing import Any

from examples.claims.links import Links
from examples.claims.model import Claim
from examples.claims.people import Claimant
from examples.claims.screens import policies
from examples.claims.services.photos.store import MOST_PHOTOS

KINDS = {
    "crash": ("A crash with another car", "Multi-vehicle Collision"),
    "parked": ("Someone hit my parked car", "Parked Car"),
    "object": ("I hit something else", "Single Vehicle Collision"),
    "theft": ("Theft or break-in", "Vehicle Theft"),
}
PLACES = {
    "fl": "Front left", "f": "Front", "fr": "Front right",
    "l": "Left side", "roof": "Roof or glass", "r": "Right side",
    "bl": "Back left", "b": "Back", "br": "Back right",
}  # fmt: skip
REPORTS = {"yes": ("Yes", True), "no": ("There is none", False), "later": ("I will send it later", None)}
FIELDS = ("policy", "kind", "day", "month", "year", "hurt", "report", "repair", "words", "ticket")
OLDEST = 3  # years after which a claim lapses by law
MOST = 500_000
MAJOR = 4  # damaged places that make a damage major


@dataclass
class Filing:
    """The answers as they were typed, with the photos so far, and what is wrong with which field."""

    typed: dict[str, str]
    where: tuple[str, ...] = ()
    photos: tuple[str, ...] = ()
    tel: str = ""
    mail: str = ""
    account: str = ""
    wrong: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, form: Any, links: Links) -> "Filing":
        """The filing in a posted form. Photos are those that this office has received itself."""
        given = {name: str(form.get(name, "")).strip()[:2_000] for name in FIELDS}
        photos = [photo for token in form.getlist("photo") if (photo := photo_in(links, str(token)))]
        tel, mail, account = (str(form.get(name, "")).strip()[:200] for name in ("tel", "mail", "account"))
        where = tuple(place for place in form.getlist("where") if place in PLACES)
        return cls(given, where, tuple(dict.fromkeys(photos))[:MOST_PHOTOS], tel, mail, account)

    @property
    def policy(self) -> policies.Policy | None:
        return policies.find(self.typed["policy"])

    @property
    def happened(self) -> date | None:
        try:
            return date(*(int(self.typed[part]) for part in ("year", "month", "day")))
        except ValueError:
            return None

    @property
    def damage(self) -> str:
        """The damaged places in words."""
        return ", ".join(PLACES[place] for place in self.where) or "nothing chosen"

    @property
    def claim_id(self) -> str:
        """The same for everyone who files this accident, so that it is one claim."""
        seed = f"{self.typed['policy'].upper()}/{self.happened}/{self.typed['kind']}"
        return f"VI-{int.from_bytes(sha256(seed.encode()).digest()[:4], 'big') % 10**7:07d}"

    @property
    def person(self) -> str:
        """The reference of this form's claimant, the same if the form is sent twice."""
        return "person-" + sha256(self.typed["ticket"].encode()).hexdigest()[:16]

    def check_facts(self, today: date) -> None:
        """Note what is wrong with the first step."""
        happened = self.happened
        repair = self.typed["repair"].replace(",", "").replace("$", "")
        checks = {
            "policy": ("" if self.policy else "We do not know this number. It is on your policy card."),
            "kind": "" if self.typed["kind"] in KINDS else "Choose what it was.",
            "day": _day_problem(happened, today),
            "where": "" if self.where or self.typed["kind"] == "theft" else "Tap at least one part.",
            "hurt": "" if self.typed["hurt"] in ("yes", "no") else "Tell us whether anybody was hurt.",
            "report": "" if self.typed["report"] in REPORTS else "Tell us about the police report.",
            "repair": ""
            if repair.isascii() and repair.isdigit() and 0 < int(repair[:9]) <= MOST
            else f"Enter whole dollars, up to {MOST:,}.",
        }
        self.wrong = {name: text for name, text in checks.items() if text}

    def check_reach(self) -> None:
        """Note what is wrong with the last step."""
        digits = sum(letter.isdigit() for letter in self.tel)
        checks = {
            "tel": "" if digits >= 7 else "Enter a number that we can reach you at.",
            "account": "" if len(self.account) >= 4 else "Enter the account that we pay to.",
        }
        self.wrong = {name: text for name, text in checks.items() if text}

    def claim(self) -> Claim:
        """The claim of a filing without faults. It has nothing in it that names a person."""
        policy, happened = self.policy, self.happened
        assert policy is not None and happened is not None
        hurt = self.typed["hurt"] == "yes"
        _, report = REPORTS[self.typed["report"]]
        return Claim(
            claim_id=self.claim_id,
            policy_bound=policy.bound,
            deductible=policy.deductible,
            umbrella_limit=policy.umbrella_limit,
            happened=happened,
            kind=KINDS[self.typed["kind"]][1],
            severity="Major Damage" if len(self.where) >= MAJOR else "Minor Damage",
            authority="Police" if report else None,
            police_report=report,
            bodily_injuries=int(hurt),
            witnesses=0,
            injury_amount=0,
            property_amount=0,
            vehicle_amount=int(self.typed["repair"].replace(",", "").replace("$", "")),
            vehicle=policy.vehicle,
            channel="app",
            policy=policy.number,
            paid_to=policy.paid_to,
            person=self.person,
            photos=self.photos,
        )

    def claimant(self) -> Claimant:
        """The person, for `people` alone."""
        return Claimant("", self.mail, self.tel, self.account, self.typed["words"])


def photo_token(links: Links, digest: str) -> str:
    """A photo as a form names it: only the office can have made it, so a form names no photo of others."""
    return f"{digest}.{links.signature_of('photo', digest)}"


def photo_in(links: Links, token: str) -> str:
    """The digest in a photo's token, or ""."""
    digest, _, signature = token.partition(".")
    good = hmac.compare_digest(links.signature_of("photo", digest).encode(), signature.encode())
    return digest if good else ""


def _day_problem(happened: date | None, today: date) -> str:
    if happened is None:
        return "This is no day of the calendar. Enter the day it happened."
    shown = f"{happened.day} {happened:%B} {happened.year}"
    if happened > today:
        return f"{shown} is in the future. Enter the day it happened."
    if (happened.year + OLDEST, happened.month, happened.day) < (today.year, today.month, today.day):
        return f"{shown} is more than {OLDEST} years ago. We cannot take such a claim here: please call us."
    return ""
