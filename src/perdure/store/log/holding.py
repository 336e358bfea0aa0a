"""Who holds a hub, and how long an engine that starts waits for its end.

The lease says only when another engine may take over, so that two engines do not take a hub from each other again and
again. The fence is the compare-and-swap on the log's head.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.errors import StoreInUse

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.store.log.appending import Appender
    from perdure.store.log.port import Head

LEASE: Final = 10.0
_LOOK_EVERY: Final = 1.0

log = logging.getLogger("perdure.store")


class Holder(msgspec.Struct, frozen=True):
    """The engine that holds a hub, in the log's head."""

    run: str  # of one store object
    worker: str = ""
    host: str = ""
    address: str = ""
    lease: float = LEASE  # seconds
    replica: str = ""  # its file, and the boot of its machine


def holder_of(head: Head) -> Holder | None:
    """The engine in the head, None if no engine holds the hub, or if one left something unreadable."""
    try:
        return msgspec.json.decode(head.holder, type=Holder) if head.holder else None
    except msgspec.MsgspecError:
        return None


def rival_in(head: Head, own: Holder) -> Holder | None:
    """Another engine that lives. One whose replica this engine has locked has ended."""
    holder = holder_of(head)
    if holder is None or holder.run == own.run or holder.replica == own.replica:
        return None
    return holder if head.age < holder.lease else None


def await_end(head: Head, own: Holder, appender: Appender, *, follow: Callable[[], None] | None) -> Head:
    """Wait until no engine holds the hub, or its holder gives a sign of life.

    A standby waits for the holder's end, and calls `follow` meanwhile to stay up to date. Returns the head that was
    seen last. Tells it in one line.
    """
    rival = rival_in(head, own)
    if rival is not None:
        _tell(rival, head, appender.where, is_standby=follow is not None)
    while rival is not None:
        appender.patience.sleep(_LOOK_EVERY)
        last, head = head, appender.head()
        if follow is not None:
            follow()
        elif head.age < last.age:
            break
        rival = rival_in(head, own)
    return head


def demand_free(head: Head, own: Holder, where: str) -> None:
    """Raise StoreInUse, with the address of the holder, if another engine lives."""
    rival = rival_in(head, own)
    if rival is None:
        return
    served = f" and serves it at {rival.address}" if rival.address else ""
    raise StoreInUse(
        f"the engine {rival.worker or rival.run[:8]} on {rival.host} holds {where}{served}. Only one engine can hold "
        f"a hub in a log: use that one, or stop it. Without a sign of life for {rival.lease:g} seconds another "
        "engine may take over",
        rival.address,
    )


def _tell(rival: Holder, head: Head, where: str, *, is_standby: bool) -> None:
    wait = "its end" if is_standby else f"a sign of life, at most {rival.lease - head.age:.0f} s"
    served = f" at {rival.address}" if rival.address else ""
    log.warning("an engine on %s holds %s%s: waiting for %s", rival.host, where, served, wait)


__all__ = ["LEASE", "Holder", "await_end", "demand_free", "holder_of", "rival_in"]
