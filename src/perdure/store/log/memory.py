"""A service in memory, with the faults of a network between it and its clients.

One `MemoryService` is what a storage account keeps for one hub; each engine gets a log object from it. A late request
is delivered after the next one, or after as many as `lateness` says, so a retry overtakes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple, TypeVar

from perdure.errors import StoreUnusable
from perdure.store.log.port import LARGEST, Head, Missing, Moved, Record, Trimmed, Unknown

Fate = Literal["done", "cut", "unanswered", "doubled", "late"]
"""done; never arrives; is done without an answer; arrives twice; arrives after the next request."""
FATES: Final[tuple[Fate, ...]] = ("done", "cut", "unanswered", "doubled", "late")
_PAGE: Final = 1_000
T = TypeVar("T")


def _all_done(_verb: str) -> Fate:
    return "done"


class _Seen(NamedTuple):
    end: int
    tag: int


class MemoryService:
    """A `Service`. `now` is its clock in microseconds; `faults` decides the fate of a request by its verb.

    Of a request that changes nothing, only the answer can be lost.
    """

    def __init__(
        self,
        name: str = "hub",
        *,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000,
        faults: Callable[[str], Fate] = _all_done,
    ) -> None:
        self.where = f"memory log {name}"
        self.directory = f"memory-{name}"
        self.now, self.faults = now, faults
        self.requests: dict[str, int] = {}
        self._lock = threading.RLock()
        self._records: dict[int, Record] = {}
        self.history: dict[int, bytes] = {}  # of all records ever, also those that were trimmed
        self._end, self._tag, self._holder, self._written_at = 0, 0, b"", 0
        self._about: tuple[bytes, int] | None = None
        self._blobs: dict[str, bytes] = {}
        self.lateness: Callable[[], int] = lambda: 1
        self.send_late: Callable[[Callable[[], None]], bool] = lambda request: (
            False
        )  # True: it delivers this one
        self._late: list[
            tuple[int, Callable[[], object]]
        ] = []  # with the number of requests that overtake it
        self._held: dict[str, list[Callable[[], object]]] = {}

    def log(self) -> MemoryLog:
        return MemoryLog(self)

    def about(self) -> MemoryAbout:
        return MemoryAbout(self)

    def blobs(self) -> MemoryBlobs:
        return MemoryBlobs(self)

    def exists(self) -> bool:
        return self._tag > 0

    def close(self) -> None:
        pass

    def deliver_late(self) -> None:
        """Deliver the requests that are under way; what they would answer is lost."""
        with self._lock:
            self._deliver(every=True)

    def _deliver(self, *, every: bool = False) -> None:
        late, self._late = self._late, []
        for left, request in late:
            if every or left <= 0:
                _without_answer(request)
            else:
                self._late.append((left - 1, request))

    def held(self, verb: str) -> list[Callable[[], object]]:
        """The list that gets the requests of this verb, whatever their fate: a test delivers them when it wants."""
        return self._held.setdefault(verb, [])

    def _request(self, verb: str, request: Callable[[], T]) -> T:
        """Let one changing request meet its fate."""
        with self._lock:
            self._deliver()
            self.requests[verb] = self.requests.get(verb, 0) + 1
            if verb in self._held:
                self._held[verb].append(request)
            fate = self.faults(verb)
            if fate == "late" and not self.send_late(lambda: _without_answer(request)):
                self._late.append((max(1, self.lateness()), request))
            return self._meet(fate, verb, request)

    def _ask(self, verb: str, request: Callable[[], T]) -> T:
        """One request that changes nothing: it has an answer, or none."""
        with self._lock:
            self._deliver()
            self.requests[verb] = self.requests.get(verb, 0) + 1
            if self.faults(verb) not in ("done", "doubled"):
                raise Unknown(f"{verb}: no answer")
            return request()

    def _meet(self, fate: Fate, verb: str, request: Callable[[], T]) -> T:
        if fate == "unanswered":
            _without_answer(request)
        elif fate in ("done", "doubled"):
            try:
                return request()
            finally:
                if fate == "doubled":
                    _without_answer(request)
        raise Unknown(f"{verb}: no answer")

    def _swap(self, seen: _Seen | None, holder: bytes | None, record: bytes | None) -> _Seen:
        """The compare-and-swap of the head."""
        if self._tag == 0 or seen is None or seen.tag != self._tag:
            raise Moved
        if record is not None:
            self._records[self._end] = Record(record, self.now())
            self.history[self._end] = record
            self._end += 1
        if holder is not None:
            self._holder = holder
        self._tag += 1
        self._written_at = self.now()
        return _Seen(self._end, self._tag)


def _without_answer(request: Callable[[], object]) -> None:
    try:
        request()
    except (Moved, Missing):
        pass


class MemoryLog:
    """A `Log`."""

    def __init__(self, service: MemoryService) -> None:
        self._service = service
        self._seen: _Seen | None = None

    def create(self) -> None:
        service = self._service

        def request() -> None:
            if service._tag == 0:
                service._tag, service._written_at = 1, service.now()

        service._request("create", request)

    def head(self) -> Head:
        service = self._service

        def request() -> tuple[_Seen, Head]:
            if service._tag == 0:
                raise Missing
            age = (service.now() - service._written_at) / 1e6
            return _Seen(service._end, service._tag), Head(service._end, service._holder, age)

        self._seen, head = service._ask("head", request)
        return head

    def append(self, at: int, record: bytes, holder: bytes | None = None) -> int:
        if len(record) > LARGEST:
            raise ValueError(f"a record of {len(record)} bytes")
        seen = self._seen
        if seen is None or seen.end != at:
            raise Moved
        self._seen = self._service._request("append", lambda: self._service._swap(seen, holder, record))
        return self._seen.end

    def touch(self, at: int, holder: bytes) -> None:
        seen = self._seen
        if seen is None or seen.end != at:
            raise Moved
        self._seen = self._service._request("touch", lambda: self._service._swap(seen, holder, None))

    def read(self, at: int) -> tuple[list[Record], int]:
        service = self._service

        def request() -> tuple[list[Record], int]:
            if service._tag == 0:
                raise Missing
            if at < service._end and at not in service._records:
                if min(service._records, default=service._end) > at:
                    raise Trimmed
                raise StoreUnusable(f"{service.where} lacks the record {at}: another program deleted it")
            found: list[Record] = []
            while len(found) < _PAGE and at + len(found) in service._records:
                found.append(service._records[at + len(found)])
            return found, service._end

        return service._ask("read", request)

    def trim(self, below: int) -> None:
        def request() -> None:
            for no in [no for no in self._service._records if no < below]:
                del self._service._records[no]

        self._service._request("trim", request)

    def close(self) -> None:
        self._seen = None


class MemoryAbout:
    """An `About`."""

    def __init__(self, service: MemoryService) -> None:
        self._service = service

    def read(self) -> tuple[bytes, str] | None:
        def request() -> tuple[bytes, str] | None:
            found = self._service._about
            return None if found is None else (found[0], str(found[1]))

        return self._service._ask("about", request)

    def write(self, content: bytes, tag: str | None) -> str:
        service = self._service

        def request() -> str:
            found = service._about
            if (None if found is None else str(found[1])) != tag:
                raise Moved
            service._about = content, 1 if found is None else found[1] + 1
            return str(service._about[1])

        return service._request("write", request)


class MemoryBlobs:
    """A `Blobs`."""

    def __init__(self, service: MemoryService) -> None:
        self._service = service

    def put(self, name: str, content: bytes) -> None:
        self._service._request("put", lambda: self._service._blobs.__setitem__(name, content))

    def get(self, name: str) -> bytes:
        def request() -> bytes:
            if name not in self._service._blobs:
                raise Missing(name)
            return self._service._blobs[name]

        return self._service._ask("get", request)

    def names(self, prefix: str) -> list[str]:
        return self._service._ask(
            "names", lambda: sorted(name for name in self._service._blobs if name.startswith(prefix))
        )

    def delete(self, names: Sequence[str] | Iterable[str]) -> None:
        def request() -> None:
            for name in names:
                self._service._blobs.pop(name, None)

        self._service._request("delete", request)


__all__ = ["FATES", "Fate", "MemoryAbout", "MemoryBlobs", "MemoryLog", "MemoryService"]
