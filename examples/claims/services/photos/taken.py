"""When a photo was taken, as its metadata say.

Anyone can change them. They are a hint, and a wrong one is a reason to ask.
"""

import re
from datetime import datetime
from pathlib import Path

from PIL import Image

EXIF_IFD, TAKEN_AT = 0x8769, 0x9003
A_TIME = re.compile(r"\s*(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")


def taken_at(original: Path) -> datetime | None:
    """The camera's time, without a time zone. None if the photo does not say, or says rubbish."""
    try:
        with Image.open(original, formats=("JPEG", "PNG")) as image:
            text = image.getexif().get_ifd(EXIF_IFD).get(TAKEN_AT)
    except Exception:  # a parser of bytes that a stranger has written: there is no list of what it raises
        return None
    found = A_TIME.match(text) if isinstance(text, str) else None
    try:
        return datetime.strptime(" ".join(found.groups()), "%Y %m %d %H %M %S") if found else None
    except ValueError:
        return None
