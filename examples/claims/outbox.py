"""Messages to people, one file each, in a folder that plays the mail server."""

import os
from pathlib import Path


class Outbox:
    """A folder for each addressee. A message has a name, so sending it again does not make a second message."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # other users of this machine cannot read it

    def send(self, addressee: str, name: str, text: str) -> None:
        """Write the message to disk. When the method returns, the message is complete and durable."""
        place = self.folder / addressee / f"{name}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{os.getpid()}.draft")
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)
