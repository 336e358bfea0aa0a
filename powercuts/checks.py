"""The check after a cut: the store must keep all promises of the engine.

The store must have exactly the content after the last completed commit, or after the one in progress; every
acknowledged request must have left its traces; the verifier must find nothing; and a new engine, whose clients
repeat unanswered requests, must come to rest with each event taken once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import apsw

from perdure.engine.client.status import Detail, status_of
from perdure.engine.upkeep.verification import verify
from perdure.errors import PerdureError
from perdure.model.instances import RuntimeStatus
from perdure.model.messages import Resume, Start
from perdure.model.records import InstanceFilter
from perdure.store.sqlite.connection import open_reader
from perdure.testing.clock import VirtualClock
from powercuts.disk import Image
from powercuts.ledger import REFUSALS, Commit, CutLedger, Submission, starts_promised, tokens_promised
from powercuts.machine import FILE, Machine
from powercuts.store_sizes import Tuning
from powercuts.temporary_folder import folder

_REMEMBERED = 20 * 3_600 * 1_000_000  # microseconds; the store forgets operations after 24 hours


class Lived(Protocol):
    """The life of an engine, as the check uses it."""

    seed: int
    tuning: Tuning
    clock: VirtualClock
    ledger: CutLedger
    verified: set[int]


@dataclass
class Promises:
    """The promises of an engine and its predecessors on this disk at the moment of the cut."""

    orders: list[Submission]
    commits: list[Commit]
    position: int

    @classmethod
    def of(cls, life: Lived, position: int, earlier: Sequence[Submission] = ()) -> Promises:
        orders = [*earlier, *(_as_known(o, position) for o in life.ledger.orders if o.asked_at <= position)]
        return cls(orders, life.ledger.commits, position)

    def unanswered(self) -> list[Submission]:
        return [order for order in self.orders if order.is_repeated]


def _as_known(order: Submission, position: int) -> Submission:
    """The order as its client saw it at this position, without later answers, with all positions before 0."""
    seen = Submission(order.message, order.operation_id, order.token, 0)
    if 0 <= order.answered_at <= position:
        seen.answered_at, seen.answer = 0, order.answer
    if 0 <= order.repeated_at <= position:
        seen.repeated_at = 0
    return seen


@dataclass
class CutFinding:
    """The findings after one cut."""

    problems: list[str] = field(default_factory=list)
    lost_commits: int = 0
    lost_orders: int = 0
    content: int = 0
    went_on: bool = False


def examine(life: Lived, image: Image, promises: Promises, *, goes_on: bool = True) -> CutFinding:
    """Put the image on a plain disk, open it with a new store, and check it.

    The verifier reads only content covered by the fingerprint, so it checks each content of a life once.
    """
    finding = CutFinding()
    with folder() as place, life.tuning.applied():
        for name, content in image.items():
            content.save(f"{place}/{name}")
        ledger, clock = CutLedger(), VirtualClock()
        clock.move(life.clock.now())
        machine = Machine(place, ledger, life.tuning.limits, life.seed + promises.position, clock)
        try:
            machine.open()
            _check_file(place, finding)
            _check_content(machine, promises, finding)
            finding.problems += _broken_promises(machine, promises, finding)
            if finding.content not in life.verified:
                finding.problems += _verified(machine, "after the cut")
                life.verified.add(finding.content)
            if goes_on and not finding.problems:
                finding.went_on = True
                finding.problems += going_on(machine, promises.orders)
        except (PerdureError, apsw.Error) as error:
            finding.problems.append(f"corrupt: the store cannot be used any more: {error!r}")
        finally:
            machine.close()
    return finding


def _check_file(place: str, finding: CutFinding) -> None:
    reader = open_reader(f"{place}/{FILE}")
    try:
        said = reader.pragma("integrity_check")
        if said != "ok":
            finding.problems.append(f"corrupt: integrity_check says {said}")
    finally:
        reader.close()


def _check_content(machine: Machine, promises: Promises, finding: CutFinding) -> None:
    finding.content = machine.store.content()
    if not promises.commits:
        return
    done = [n for n, commit in enumerate(promises.commits) if commit.ends <= promises.position]
    newest = done[-1] if done else 0
    following = promises.commits[newest + 1 : newest + 2]
    allowed = [promises.commits[newest].content]
    allowed += [commit.content for commit in following if commit.begins <= promises.position]
    if finding.content in allowed:
        return
    contents = [commit.content for commit in promises.commits[:newest]]
    if finding.content in contents:
        earlier = len(contents) - contents[::-1].index(finding.content) - 1
        finding.lost_commits = newest - earlier
        finding.problems.append(f"lost: {finding.lost_commits} commits that had returned")
    else:
        finding.problems.append("corrupt: the store holds what no commit ever left there")


def _broken_promises(machine: Machine, promises: Promises, finding: CutFinding) -> list[str]:
    store, execute = machine.store, machine.store._execute
    ledger = CutLedger(orders=promises.orders)
    purged = ledger.purges(0)
    rows = {row.instance_id: row for row in store.query(InstanceFilter(top=1_000))}
    lost = [
        f"lost: the acknowledged start of {instance_id}"
        for instance_id in starts_promised(promises.orders, 0) - purged - rows.keys()
    ]
    for instance_id, tokens in tokens_promised(promises.orders, 0).items():
        if instance_id in purged or instance_id not in rows:
            continue
        number = (rows[instance_id].instance_no,)
        named = (instance_id,)
        held = b"".join(
            [
                *(
                    bytes(row[0])
                    for row in execute("select events from history where instance_no = ?", number)
                ),
                *(
                    bytes(row[0])
                    for row in execute("select body from payloads where instance_no = ?", number)
                ),
                *(bytes(row[0]) for row in execute("select message from inbox where instance_id = ?", named)),
                *(bytes(row[0]) for row in execute("select body from dropped where instance_id = ?", named)),
            ]
        )
        lost += [f"lost: the acknowledged event {t}" for t in tokens if t.encode() not in held]
    if machine.clock.monotonic() < _REMEMBERED / 1e6:
        promised = [o.operation_id for o in ledger.acknowledged(0) if o.operation_id]
        remembered = {row.operation_id for row in store.seen(promised)}
        lost += [f"lost: the answer to operation {one}" for one in promised if one not in remembered]
    finding.lost_orders = len(lost)
    return lost


def _verified(machine: Machine, when: str) -> list[str]:
    report = verify(machine.store)
    problems = [f"verifier {when}: {problem}" for problem in report.problems]
    if report.redacted:
        problems.append(f"verifier {when}: {report.redacted} bodies are gone")
    return problems


def going_on(machine: Machine, orders: Sequence[Submission]) -> Iterator[str]:
    """Clients repeat unanswered requests, and the engine comes to rest."""
    repeated = [order.renewed() for order in orders if order.is_repeated]
    asked_again = {order.token: machine.clock.now() for order in repeated if order.token}
    for order in orders:
        if order.is_repeated:
            order.repeated_at = machine.ledger.position()
    for order in repeated:
        machine.ask(order)
    if not machine.rest():
        yield "stuck: the engine does not come to rest"
        return
    for row in machine.store.query(InstanceFilter(status=("Suspended",), top=1_000)):
        if row.reason[:9] in ("no_worker", "nondeterm", "poison"):
            yield f"parked: {row.instance_id}: {row.reason}"
        machine.ask(Submission(Resume(instance_id=row.instance_id), ""))
    machine.rest()
    for order in repeated:
        if order.is_open or (isinstance(order.answer, BaseException) and not _may_be_refused(order)):
            yield f"wrong: a repeated {type(order.message).__name__} ended with {order.answer!r}"
    for row in machine.store.query(InstanceFilter(top=1_000)):
        if not RuntimeStatus(row.status).is_finished:
            yield f"stuck: {row.instance_id} ({row.name}) rests while {row.status}"
    yield from _tokens(machine, [*orders, *repeated], asked_again)
    yield from _verified(machine, "at rest")


def _may_be_refused(order: Submission) -> bool:
    return isinstance(order.answer, REFUSALS) or type(order.answer).__name__ == "IllegalTransition"


def _tokens(machine: Machine, orders: list[Submission], asked_again: Mapping[str, int]) -> Iterator[str]:
    """Every acknowledged event was taken once by a collector that has completed.

    An event that is accepted after the deadline of its wait is too late, even if the wait is still open because the
    instance is suspended. `asked_again` has the times at which events were sent that had no answer before the cut.
    """
    promised = tokens_promised(orders, len(orders) + 1)
    started = {o.message.instance_id for o in orders if isinstance(o.message, Start)}
    for instance_id in started:
        status = status_of(machine.store, instance_id, Detail())
        if status is None or status.name != "collector" or status.runtime_status != "Completed":
            continue
        taken = Counter(status.output)
        twice = [token for token, count in taken.items() if count > 1]
        missing = [token for token in promised.get(instance_id, ()) if token not in taken]
        if missing:
            missing = _in_time(machine, instance_id, missing, asked_again)
        if twice or missing:
            yield f"{instance_id} took {twice} twice and never {missing}"


def _in_time(
    machine: Machine, instance_id: str, tokens: list[str], asked_again: Mapping[str, int]
) -> list[str]:
    """The events that a suspended collector got before the deadline of its last wait.

    Before it was suspended, it took events at once.
    """
    status = status_of(machine.store, instance_id, Detail(history=True))
    history = status.history or [] if status is not None else []
    deadlines = [event["deadline"] for event in history if event["type"] == "EventAwaited"]
    suspended = [event["timestamp"] for event in history if event["type"] == "ExecutionSuspended"]
    if not deadlines or not suspended:
        return tokens
    since = int(datetime.fromisoformat(suspended[-1]).timestamp() * 1e6)
    return [token for token in tokens if max(since, asked_again.get(token, 0)) < deadlines[-1]]
