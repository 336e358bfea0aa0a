"""How the files of this folder were made, on 30 November 2026, with the code of commit 589c911.

It is kept as a description and is not run again: what it would write today is what today's code writes, and the
point of the kept files is that older code has written them. See README.md.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import msgspec

from perdure.model import hash_chain
from perdure.model.durations import moment
from perdure.store import open_store
from perdure.store.encryption import Encryption
from perdure.testing import environment, recording_of
from perdure.triggers import Queues
from tests.kept.application import STYLES, build

KEY = "k1:" + "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="  # the bytes 0 to 31


async def fill(url: str, encryption: Encryption | None, exports: Path | None) -> None:
    store = open_store(url, "kept", encryption)
    app = build(broken=True)
    app.encryption = encryption
    async with environment(app, store=store) as env:
        client = env.client
        for style in STYLES:
            await first_deploy(client, style)
        queues = Queues(client)
        await queues.send("orders", {"n": 1}, message_id="handled")
        await queues.send("orders", {"n": -1}, message_id="dead")
        await queues.send("orders", {"n": 2}, message_id="later", at=env.now + timedelta(days=20))
        await queues.send("nowhere", {"n": 3}, message_id="unread")
        await client.signal_entity("@ledger@main", "add", 1_000, at=env.now + timedelta(days=20))
        await env.advance(minutes=30)
        for style in STYLES:
            await raise_typed(client, style)
        await env.advance(minutes=30)
        for style in STYLES:
            await client.raise_event(f"everything-done-{style}", "Go", {"at": "last"})
            await client.raise_event(f"generations-done-{style}", "Go", "end")
            await client.terminate(f"terminated-{style}", "not wanted")
            await client.suspend(f"suspended-{style}", "a look first")
            await client.suspend(f"resumed-{style}", "a look first")
        await env.settled()
        for style in STYLES:
            await client.raise_event(f"suspended-{style}", "Go", "held while suspended")
            await client.resume(f"resumed-{style}", "looked at")
        await env.settled()
        last = build(missing=("lonely",), changed=True, stuck=True)
        last.encryption = encryption
        client = await env.restart(last)
        for style in STYLES:
            await client.raise_event(f"unserved-{style}", "Step", 1)
            await client.raise_event(f"disagreeing-{style}", "Step", 1)
            await client.rewind(f"rewound-{style}", "the activity is mended")
            await client.rewind(f"rewound-done-{style}", "the activity is mended")
        await env.settled()
        for style in STYLES:
            await client.raise_event(f"rewound-done-{style}", "Go", "end")
        await env.settled()
        if exports is not None:
            await export(client, exports)
        for style in STYLES:
            await client.start_new(f"working-{style}", f"working-{style}")


async def first_deploy(client: Any, style: str) -> None:
    wide = {"n": 2, "large": "payload " * 2_200}
    small = {"n": 2, "large": "payload"}
    await client.start_new(f"everything-{style}", f"everything-{style}", wide, tags={"kept": style})
    await client.start_new(f"everything-{style}", f"everything-done-{style}", small)
    for name in ("generations", "generations-done"):
        await client.start_new(f"generations-{style}", f"{name}-{style}", [])
        for n in range(3):
            await client.raise_event(f"{name}-{style}", "Step", n)
    for name in ("failed", "rewound", "rewound-done"):
        await client.start_new(f"fragile-{style}", f"{name}-{style}")
    await client.start_new(f"unserved-{style}", f"unserved-{style}")
    await client.start_new(f"parkable-{style}", f"disagreeing-{style}")
    for name in ("terminated", "suspended", "resumed", "waiting"):
        await client.start_new(f"waiting-{style}", f"{name}-{style}")
    for name in ("retrying", "section", "parent", "sleeping"):
        await client.start_new(f"{name}-{style}", f"{name}-{style}")
    later = moment(client.gateway.now()) + timedelta(days=20)
    await client.start_new(f"waiting-{style}", f"delayed-{style}", None, start_at=later)


async def raise_typed(client: Any, style: str) -> None:
    for name in ("everything", "everything-done"):
        await client.raise_event(f"{name}-{style}", "Typed", "not a number")
        await client.raise_event(f"{name}-{style}", "Typed", 12)


async def export(client: Any, file: Path) -> None:
    """What `perdure export` writes of each instance, one a line."""
    page = await client.query(top=1_000)
    with gzip.open(file, "wb") as kept:
        for one in page.instances:
            found = await client.get_status(one.instance_id, True, True, True)
            kept.write(msgspec.json.encode(recording_of(found)) + b"\n")


def vectors() -> list[dict[str, Any]]:
    """Chains of a few rows; of each pair that differs in one member, the digests differ."""
    chance = random.Random(589)
    salt, other_salt = chance.randbytes(16), chance.randbytes(16)
    rows = [(0, 1_000_000, b"[]"), (1, 2_000_000, b'[{"type":"TimerFired","timer_id":1}]')]
    plain = (salt, 1, rows)
    cases = [
        ("plain", *plain),
        ("another salt", other_salt, 1, rows),
        ("another execution", salt, 2, rows),
        ("another episode", salt, 1, [(1, *rows[0][1:]), (2, *rows[1][1:])]),
        ("another time", salt, 1, [rows[0], (1, 2_000_001, rows[1][2])]),
        ("another first time", salt, 1, [(0, 1_000_001, b"[]"), rows[1]]),
        ("other events", salt, 1, [rows[0], (1, 2_000_000, rows[1][2].replace(b"1}", b"2}"))]),
        ("other first events", salt, 1, [(0, 1_000_000, b"[ ]"), rows[1]]),
        ("large numbers", salt, 2**40, [(2**40, 2**60, chance.randbytes(100))]),
        ("no rows", salt, 7, []),
    ]
    return [_vector(*case) for case in cases]


def _vector(name: str, salt: bytes, execution_no: int, rows: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    head, found = hash_chain.base_of(salt, execution_no), []
    base = head
    for episode, at, events in rows:
        digest = hash_chain.digest_of(salt, events)
        head = hash_chain.link(head, execution_no, episode, at, digest)
        row = {"episode": episode, "at": at, "events": events.hex()}
        found.append({**row, "digest": digest.hex(), "hash": head.hex()})
    return {"name": name, "salt": salt.hex(), "execution": execution_no, "base": base.hex(), "rows": found}


def main(folder: Path) -> None:
    for name, encryption in (("plain", None), ("encrypted", Encryption.read(KEY))):
        file = folder / f"{name}.db"
        exports = folder / "exports.jsonl.gz" if encryption is None else None
        asyncio.run(fill(f"sqlite:///{file}", encryption, exports))
        connection = apsw.Connection(str(file))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("VACUUM")
        connection.close()
        (folder / f"{name}.sqlite.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    (folder / "chains.json").write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
