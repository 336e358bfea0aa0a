"""What one claim's photos show: each question once, in an order, and the first problem that a claimant is told."""

import threading
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import msgspec
from PIL import Image

from examples.claims.services.photos import damage, readable
from examples.claims.services.photos.damage import Damage
from examples.claims.services.photos.pictures import grey_of, pixels_of, small
from examples.claims.services.photos.register import Register, Sighting
from examples.claims.services.photos.resemblance import Print
from examples.claims.services.photos.store import PhotoStore, Refusal
from examples.claims.services.photos.taken import taken_at


@dataclass(frozen=True)
class Finding:
    """What one photo shows, whatever the claim says."""

    digest: str
    sharpness: float
    brightness: float
    taken: datetime | None
    seen_before: Sighting | None
    damage: Damage

    def problem(self, happened: date) -> Refusal | None:
        """The first reason why the photo cannot be used for an accident of that day."""
        reasons = (
            (self.brightness < readable.LIGHT_ENOUGH, Refusal.TOO_DARK),
            (self.sharpness < readable.SHARP_ENOUGH, Refusal.TOO_BLURRED),
            (self.taken is not None and self.taken.date() < happened, Refusal.TOO_OLD),
            (self.seen_before is not None, Refusal.SEEN_BEFORE),
        )
        return next((refusal for holds, refusal in reasons if holds), None)


class Assessor:
    """Looks at photos of the store and registers them. Its methods block; several threads can call them."""

    def __init__(self, store: PhotoStore, register: Register) -> None:
        self._store = store
        self._register = register

    def look_at(self, claim_id: str, digest: str) -> Finding:
        """What a photo shows. A repeat answers with what was found at first."""
        known = self._register.known(claim_id, digest)
        if known is None:
            known = self._look(claim_id, digest)
        return msgspec.json.decode(known, type=Finding)

    def erase(self, claim_id: str) -> int:
        """Delete the photos of a claim, and what is known of them; returns how many. Other claims keep theirs."""
        digests = self._register.erase(claim_id)
        for digest in digests:
            self._store.remove(digest)
        return len(digests)

    def _look(self, claim_id: str, digest: str) -> bytes:
        picture = small(self._store.clean(digest))
        pixels, grey = pixels_of(picture), grey_of(picture)
        found, heat = damage.find(pixels)
        _write(damage.picture_of(heat, picture.size), self._store.heat_map(digest))

        def finding(sighting: Sighting | None) -> bytes:
            return msgspec.json.encode(
                Finding(
                    digest,
                    sharpness=readable.sharpness(grey),
                    brightness=readable.brightness(grey),
                    taken=taken_at(self._store.original(digest)),
                    seen_before=sighting,
                    damage=found,
                )
            )

        return self._register.enter(claim_id, digest, Print.of(picture), finding)


def _write(picture: Image.Image, path: Path) -> None:
    draft = path.with_suffix(f".{threading.get_ident()}.draft")
    picture.save(draft, "PNG")
    draft.replace(path)
