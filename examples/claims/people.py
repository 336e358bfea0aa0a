"""The claimants, apart from their claims: a claim, its history and its messages name a person by a reference.

One encrypted row a person, in a file of its own. Erasing a person deletes the row. The histories of their claims
contain no personal data, so they stay as they are, and their hash chains still verify.
"""

import os
import secrets
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SCHEMA = """
create table if not exists people (person text primary key, sealed blob not null) strict;
create table if not exists erased (person text primary key) strict;
"""
NONCE = 12


@dataclass(frozen=True)
class Claimant:
    """A person. `words` is what they say happened: free text can name people, too."""

    name: str = ""
    mail: str = ""
    phone: str = ""
    account: str = ""
    words: str = ""


UNKNOWN = Claimant()


class People:
    """The claimants in one file. Each row is encrypted with AES-GCM, bound to the reference of its person."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._lock = threading.Lock()
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma secure_delete = on")
        self._connection.executescript(SCHEMA)

    def add(self, claimant: Claimant, person: str = "") -> str:
        """Keep a person, or replace what is known of them; returns the reference."""
        person = person or f"person-{secrets.token_hex(8)}"
        nonce = secrets.token_bytes(NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, msgspec.json.encode(claimant), person.encode())
        with self._lock:
            self._connection.execute("insert or replace into people values (?, ?)", (person, sealed))
            self._connection.execute("delete from erased where person = ?", (person,))
        return person

    def find(self, person: str) -> Claimant:
        """The person, or UNKNOWN: a claim can have none, or their data was erased."""
        with self._lock:
            row = self._connection.execute("select sealed from people where person = ?", (person,)).fetchone()
        if row is None:
            return UNKNOWN
        opened = self._cipher.decrypt(row[0][:NONCE], row[0][NONCE:], person.encode())
        return msgspec.json.decode(opened, type=Claimant)

    def erase(self, person: str) -> None:
        """Forget a person, in the file too, and remember only that it was done. Repeating it has no effect."""
        with self._lock:
            self._connection.execute("insert or ignore into erased values (?)", (person,))
            self._connection.execute("delete from people where person = ?", (person,))
            self._connection.execute("pragma wal_checkpoint(truncate)")

    def is_erased(self, person: str) -> bool:
        """Whether there was such a person, and their data was erased."""
        with self._lock:
            found = self._connection.execute("select 1 from erased where person = ?", (person,)).fetchone()
        return found is not None

    def close(self) -> None:
        self._connection.close()


def key_in(path: Path) -> bytes:
    """The 32 bytes in a file that only its owner can read; the first caller makes it.

    In production a key comes from a vault: see docs/how-to/from-demo-to-production.md.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    try:
        os.link(draft, path)  # of two processes that begin at once, one makes the key
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_bytes()
