"""Messages to people, one file each, in a folder that stands for a mail server."""

import os
from pathlib import Path


class Outbox:
    """A folder per addressee. A message has a name, and sending it again is no second message."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # not for other users of this machine

    def send(self, addressee: str, name: str, text: str) -> None:
        """Write the message to disk; when this returns it is there, whole, to stay."""
        place = self.folder / addressee / f"{name}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{os.getpid()}.draft")
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)
