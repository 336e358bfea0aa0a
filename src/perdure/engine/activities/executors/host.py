"""Activities on executors: process pools, Dask, any `concurrent.futures.Executor`.

Each executor has a thread here that submits attempts and collects results: starting a process must not delay
the engine's loop. A dead worker process breaks a whole pool. That is no failure of the activities: the pool is
created again, attempts that had not begun move to the new pool, and attempts that had begun, the culprit among
them, run again each in an executor of their own, where they can harm only themselves. An attempt that has
killed three processes fails. A body that neither ends nor reacts to its cancellation occupies its process.
After a few seconds new attempts go to a new executor; the old one finishes its others, and is then ended
together with the hanging process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from perdure.engine.activities.executors.channel import ExecutorChannel
from perdure.engine.activities.executors.child import carry_out
from perdure.engine.activities.executors.factories import ProcessPool
from perdure.engine.activities.executors.generation import Generation, Try
from perdure.engine.activities.results import failed
from perdure.engine.activities.runner import Attempt
from perdure.engine.core.tracing import Tracing
from perdure.errors import ExecutorFailed
from perdure.model.failures import failure_of
from perdure.model.messages import ActivityResult
from perdure.replay.settle import Invocation

STRIKES = 3
USUAL_SLOTS = 16  # of an executor that does not report its size
CANCELLED_WITHIN = 5.0  # seconds that a cancelled body may run before its process is abandoned
ROUSE_EVERY = 5.0  # seconds
LAST_WORDS = 1.0  # seconds in which cancelled bodies must end, after `drain`

log = logging.getLogger("perdure.engine")
_results = msgspec.json.Decoder(ActivityResult)


class ExecutorHost:
    """Runs attempts on the executors of one source. Methods that its thread calls have a leading underscore."""

    def __init__(
        self,
        where: str,
        source: Any,
        line: ExecutorChannel,
        conclude: Callable[[Attempt, ActivityResult], None],
        tracing: Tracing | None = None,
    ) -> None:
        self.where = where
        self._tracing = tracing
        self.source = source
        self.abandoned = 0
        self.is_broken = False  # for good: it cannot be created again
        self._line = line
        self._conclude = conclude
        self._can_renew = callable(source)
        self._present: Generation | None = None
        self._others: set[Generation] = set()
        self._hanging: list[tuple[float, Generation, Attempt]] = []
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"perdure-{where}", daemon=True)
        self._is_closing = False

    def open(self) -> None:
        """Create the executor. Raises the errors of its source."""
        self._present = Generation(self.source)
        self._thread.start()

    def put(self, attempt: Attempt, place: str) -> None:
        """Run an attempt; from any thread."""
        self._jobs.put(partial(self._submit, attempt, place))

    def stop(self, attempt: Attempt) -> None:
        self._jobs.put(partial(self._stop, attempt))

    def began(self, attempt: Attempt, pid: int) -> None:
        """An attempt's body begins, in process `pid`. From any thread."""
        generation = attempt.task
        attempt.begun = True
        if generation is not None:
            generation.has_begun = True
            found = generation.tries.get(attempt)
            if found is not None:
                found.pid = pid

    def look(self) -> None:
        """Check the workers, because one seems to be gone. From any thread."""
        self._jobs.put(self._rouse)

    @property
    def running(self) -> int:
        return sum(attempt.begun for g in self._generations() for attempt in list(g.tries))

    @property
    def slots(self) -> int:
        return self.source.workers if isinstance(self.source, ProcessPool) else USUAL_SLOTS

    @property
    def free(self) -> int:
        return self.slots - self._jobs.qsize() - sum(len(g.tries) for g in self._generations())

    @property
    def waiting(self) -> int:
        return self._jobs.qsize() + sum(not a.begun for g in self._generations() for a in list(g.tries))

    def close(self) -> None:
        """End the executors that the engine owns. Bodies that do not stop end with their processes."""
        self._is_closing = True
        self._jobs.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        for generation in self._generations():
            self._end(generation)

    # ------------------------------------------------------------------------------------ on its own thread

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(
                    timeout=0.5 if self._hanging else ROUSE_EVERY if self._has_work() else None
                )
            except Empty:
                job = self._look_around
            if job is None:
                return
            try:
                job()
            except Exception:
                log.exception("the executor of %s: internal error", self.where)

    def _has_work(self) -> bool:
        return any(generation.tries for generation in self._generations())

    def _look_around(self) -> None:
        self._look_at_hanging()
        self._rouse()

    def _rouse(self) -> None:
        """Submit work, so that CPython's pool checks its processes: it checks them only when it gets work,
        before it may start another process, and a process that dies right after goes unnoticed.
        """
        if isinstance(self.source, ProcessPool):
            for generation in self._generations():
                with suppress(Exception):
                    generation.opened.executor.submit(int)

    def _submit(self, attempt: Attempt, place: str, *, alone: bool = False) -> None:
        if attempt.settled or self._is_closing:
            return
        try:
            generation = self._alone() if alone else self._current()
        except Exception as error:
            self._fail(attempt, f"its executor could not be created: {type(error).__name__}: {error}")
            return
        token, card = self._line.card(attempt)
        found = generation.tries[attempt] = Try(place, token)
        attempt.task = generation
        run: Callable[[str, bytes, bytes], bytes] = carry_out
        invocation = attempt.invocation
        if self._tracing is not None and invocation.trace:
            run = self._tracing.carry_out
            invocation = msgspec.structs.replace(invocation, trace=self._tracing.travels(invocation))
        try:
            future = generation.opened.executor.submit(run, place, _letter(invocation), card)
        except Exception as error:  # it is broken or shut down, and raises at once
            self._over(generation, attempt)
            self._lost(generation, attempt, place, error)
            return
        found.future = future
        future.add_done_callback(lambda done: self._jobs.put(partial(self._done, generation, attempt, done)))

    def _done(self, generation: Generation, attempt: Attempt, future: Future[bytes]) -> None:
        found = self._over(generation, attempt)
        if found is None or self._is_closing:
            return
        if future.cancelled():  # not by this host, which forgets a try before it cancels its future
            self._fail(attempt, "its executor cancelled it")
            return
        error = future.exception()
        if error is not None:
            self._lost(generation, attempt, found.place, error)
        elif future.result():
            self._conclude(attempt, _results.decode(future.result()))
        elif not attempt.settled:
            self._lost(
                generation,
                attempt,
                found.place,
                ExecutorFailed("its worker process lost the connection to the engine"),
            )

    def _over(self, generation: Generation, attempt: Attempt) -> Try | None:
        """Remove a try that has ended."""
        found = generation.tries.pop(attempt, None)
        if found is not None:
            self._line.forget(found.token)
            self._hanging = [one for one in self._hanging if one[2] is not attempt]
            if attempt.abandoned:
                attempt.abandoned = False
                self.abandoned -= 1
        self._end_if_idle(generation)
        return found

    # ------------------------------------------------------------------------------------ when workers die

    def _lost(self, generation: Generation, attempt: Attempt, place: str, error: BaseException) -> None:
        """Handle an attempt that the executor could not run. The body is not at fault unless this repeats."""
        begun, attempt.begun, attempt.since = attempt.begun, False, 0.0
        is_broken = isinstance(error, (BrokenExecutor, ExecutorFailed))
        if is_broken and generation is self._present:
            self._retire(generation)
        if attempt.settled:
            return
        if not is_broken:
            self._fail(attempt, f"its executor could not run it: {type(error).__name__}: {error}")
            return
        if not self._can_renew:
            self.is_broken = True
            self._fail(
                attempt,
                f"its executor is broken ({error}) and cannot be replaced: register a "
                "function that creates it",
            )
            return
        attempt.strikes += begun or not generation.has_begun
        if attempt.strikes >= STRIKES:
            self._fail(attempt, _DIED if begun else _NEVER_BEGAN)
        else:
            log.warning("%s lost a process; activity %r runs again", self.where, attempt.invocation.name)
            self._submit(attempt, place, alone=begun)

    def _fail(self, attempt: Attempt, why: str) -> None:
        error = ExecutorFailed(
            f"activity {attempt.invocation.name!r} (attempt {attempt.invocation.attempt}) on {self.where}: {why}"
        )
        self._conclude(attempt, failed(attempt.invocation, failure_of(error, with_stack=False)))

    def _current(self) -> Generation:
        if self._present is None:
            self._present = Generation(self.source)
        return self._present

    def _alone(self) -> Generation:
        """An executor for one suspect attempt, so that a crash there identifies the culprit."""
        generation = Generation(self.source)
        generation.is_retired = True
        self._others.add(generation)
        return generation

    def _retire(self, generation: Generation) -> None:
        """Retire an executor: it gets no new attempts, and its waiting attempts move to the next one."""
        if not self._can_renew:
            return
        generation.is_retired = True
        self._others.add(generation)
        self._present = None if self._present is generation else self._present
        for attempt, found in list(generation.tries.items()):
            if found.future is not None and self._line.revoke(found.token):
                _call_off(generation, found)
                self._over(generation, attempt)
                self._submit(attempt, found.place)
        self._end_if_idle(generation)

    def _end_if_idle(self, generation: Generation) -> None:
        """End a retired executor that has no attempts left but hanging ones."""
        if generation.is_retired and all(attempt.abandoned for attempt in generation.tries):
            if generation in self._others:
                self._others.discard(generation)
                threading.Thread(
                    target=self._end, args=(generation,), name="perdure-ending", daemon=True
                ).start()

    # -------------------------------------------------------------------------------- when bodies must stop

    def _stop(self, attempt: Attempt) -> None:
        generation = attempt.task
        found = generation.tries.get(attempt) if generation is not None else None
        if found is None or found.future is None:
            return
        if self._line.revoke(found.token):
            _call_off(generation, found)
            self._over(generation, attempt)
            return
        self._line.cancel(found.token, attempt.reason)
        attempt.abandoned = True
        self.abandoned += 1
        if isinstance(self.source, ProcessPool):
            self._hanging.append((time.monotonic() + CANCELLED_WITHIN, generation, attempt))

    def _look_at_hanging(self) -> None:
        now = time.monotonic()
        late = [one for one in self._hanging if one[0] <= now]
        self._hanging = [one for one in self._hanging if one[0] > now]
        for _, generation, attempt in late:
            if attempt in generation.tries and not generation.is_retired:
                log.warning(
                    "activity %r ignores its cancellation: %s gets new processes, and its process ends when "
                    "it has no other work",
                    attempt.invocation.name,
                    self.where,
                )
                self._retire(generation)
            self._end_if_idle(generation)

    def _end(self, generation: Generation) -> None:
        """Give running attempts a moment, then end the executor; from any thread."""
        for attempt, found in list(generation.tries.items()):
            if found.future is not None and self._line.revoke(found.token):
                _call_off(generation, found)
            else:
                self._line.cancel(found.token, attempt.reason or "the engine is stopping")
        if callable(self.source):
            patience = LAST_WORDS if self._is_closing else 0.0
            wait_for([f.future for f in list(generation.tries.values()) if f.future is not None], patience)
            try:
                generation.close()
            except Exception:
                log.exception("the executor of %s did not shut down cleanly", self.where)

    def _generations(self) -> list[Generation]:
        return [*([self._present] if self._present is not None else []), *self._others]


def _call_off(generation: Generation, found: Try) -> None:
    """Cancel the future of a revoked try, so that it need not travel. A process pool is left alone: in some
    versions of CPython a pool that breaks while it holds a cancelled future never notifies the others; there
    the worker learns that it must not begin.
    """
    if found.future is not None and not isinstance(generation.opened.executor, ProcessPoolExecutor):
        found.future.cancel()


_DIED = (
    f"{STRIKES} processes ended while they ran it. Likely causes: the system ran out of memory, native code "
    "crashed, or the code called os._exit. Check the system's log, and run the function by itself"
)
_NEVER_BEGAN = (
    f"{STRIKES} times its worker processes ended before they ran anything. A script that uses a process pool "
    'starts its work under `if __name__ == "__main__":`. Other errors are on stderr'
)


def _letter(invocation: Invocation) -> bytes:
    """The invocation as JSON, which has no form for a missing input."""
    if bytes(invocation.input):
        return msgspec.json.encode(invocation)
    fields = msgspec.structs.asdict(invocation)
    del fields["input"]
    return msgspec.json.encode(fields)


__all__ = ["ExecutorHost"]
