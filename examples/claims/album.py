"""What the photo assessment says of each claim's photos, as a file beside the photos: the adjuster's panel shows it.

History has the same, and stays the record. The file is made from it again whenever a claim is assessed.
"""

import os
from pathlib import Path

import msgspec

from examples.claims.connections import photo_folder
from examples.claims.model import Photo


def write(claim_id: str, photos: tuple[Photo, ...]) -> None:
    """Keep the findings of a claim's photos, in place of earlier ones."""
    place = _place(claim_id)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = place.with_suffix(f".{os.getpid()}.draft")
    draft.write_bytes(msgspec.json.encode(photos))
    draft.replace(place)


def read(claim_id: str) -> tuple[Photo, ...]:
    """The findings of a claim's photos; none if it has no photos."""
    try:
        return msgspec.json.decode(_place(claim_id).read_bytes(), type=tuple[Photo, ...])
    except FileNotFoundError:
        return ()


def remove(claim_id: str) -> None:
    """Forget the findings of a claim's photos. Repeating it has no effect."""
    _place(claim_id).unlink(missing_ok=True)


def _place(claim_id: str) -> Path:
    return photo_folder() / "claims" / f"{claim_id.replace('/', '-')}.json"
