"""Bugs that the simulator has found, each as the smallest plan that showed it. All of them are fixed."""

from dataclasses import replace
from pathlib import Path

import pytest

import simulation.plan as plans
import simulation.program as programs
from simulation.plan import Client, Fault, Knobs, Order, Plan
from simulation.program import (
    Body,
    Boom,
    Branches,
    Call,
    Every,
    Hasty,
    Nap,
    Program,
    Sleep,
    Step,
    Sub,
    Wait,
)
from simulation.runner import run_plan

FOUND = Path(__file__).parent / "found"
EVENTS = tuple(Order(key, "raise", "i0", event="b") for key in (4, 5, 6))


def body(*generations: tuple[Step, ...]) -> Body:
    return Body("generator", generations)


def plan(
    *bodies: Body, orders: tuple[Order, ...] = (), faults: tuple[Fault, ...] = (), **knobs: object
) -> Plan:
    start = Client((Order(1, "start", "i0"),))
    then = (Client(orders, after_start=True),) if orders else ()
    return Plan(1, Knobs(**knobs), Program(bodies), (start, *then), faults)  # type: ignore[arg-type]


def well(of: Plan, seeds: int = 1) -> None:
    """All is well, on both stores; several seeds where the order of activities matters."""
    for seed in range(seeds):
        for store in ("memory", "sqlite"):
            result = run_plan(replace(of, seed=seed, knobs=replace(of.knobs, store=store)))
            assert not result.problems, (seed, store)


def test_an_event_taken_by_a_task_all_that_failed_is_not_lost() -> None:
    """Seed 148: its result counted as looked at, though the code saw only the failure."""
    parts = (Wait("b"), Call(1, fails=1, fatal=True, attempts=2), Call(2, fails=1))
    well(plan(body((Nap(0.001, Call(3)), Every(parts))), orders=EVENTS[:1], slow=1.0), seeds=12)


def test_code_that_begins_after_a_resume_knows_the_time() -> None:
    """Seed 12: the resume had opened the episode, and the code then lived in 1970: its timers fired at once."""
    start = Client((Order(1, "start", "i0", delay=5.0),))
    pause = Client((Order(2, "suspend", "i0"), Order(3, "resume", "i0", pause=6.0)), after_start=True)
    well(Plan(1, Knobs(), Program((body((Sleep(30.0),)),)), (start, pause), ()))


def test_an_event_let_go_in_the_batch_that_held_it_is_answered() -> None:
    """Seed 13: suspend, event, resume in one batch, which was then cut: the client never heard, and repeated."""
    pause = Client((Order(2, "suspend", "i0"), Order(3, "resume", "i0")), after_start=True)
    base = plan(
        body(
            (),
            (),
            (
                Branches(
                    ((Hasty("branch0", Call(1)), Wait("branch0")), (Wait("branch1", 0.5, default=True),))
                ),
            ),
        ),
        orders=EVENTS[:2],
        feeds=1,
    )
    well(replace(base, clients=(*base.clients, pause)))


def test_an_event_let_go_and_not_reached_keeps_whoever_waits_for_its_answer() -> None:
    """Suspend, event and resume in one batch that has room for two: the third comes in the next, and is answered."""
    orders = (
        Order(2, "suspend", "i0", pause=3.0),
        Order(3, "raise", "i0", event="b", pause=3.1),
        Order(4, "resume", "i0", pause=3.2),
    )
    clients = (Client((Order(1, "start", "i0"),)), *(Client((order,)) for order in orders))
    for episodes in (1, 2, 1_000):
        well(Plan(1, Knobs(gap=2.0, episodes=episodes), Program((body((Wait("b"),)),)), clients, ()))


def test_events_that_were_accepted_are_never_refused_afterwards() -> None:
    """Seed 5: held while suspended, they were dropped at the resume because there were too many of them."""
    orders = (Order(2, "suspend", "i0"), *EVENTS[:2], Order(3, "resume", "i0"))
    well(plan(body((Sleep(20.0), Wait("b"), Wait("b"))), orders=orders, buffered_events=2, gap=0.0))
    well(plan(body((Wait("b"), Sleep(20.0), Wait("b"), Wait("b"))), orders=EVENTS, buffered_events=1))


def test_an_event_that_is_awaited_finds_room() -> None:
    """Seed 177: events of another name filled the buffer, and kept out the one that was waited for."""
    orders = (Order(2, "raise", "i0", event="a"), *EVENTS[:1])
    well(plan(body((Wait("b"),)), orders=orders, buffered_events=1))


def test_a_failure_does_not_take_the_engines_troubles_for_its_cause() -> None:
    """Seed 104: redone while a refusal was handled, another instance's failure named the refusal as its cause."""
    both = (Client((Order(1, "start", "i0"),)), Client((Order(2, "start", "i1"),)))
    fault = Fault("refuse", 1, "work", 3, "i1")
    well(Plan(1, Knobs(gap=0.5), Program((body((Boom(),)),)), both, (fault,)))


def test_a_branch_that_returned_is_not_the_cause_of_what_follows() -> None:
    well(plan(body((Branches(((Sleep(1.0),), (Sleep(2.0),))), Boom()))))


def test_only_as_many_executions_are_kept_as_asked() -> None:
    """Seed 11467: those that were born in one batch with their instance all stayed."""
    well(plan(body((), (), ()), keep_executions=2))


def test_a_clock_that_is_set_back_makes_no_timer_late() -> None:
    """Seed 50: the next look at the timers was put off until the clock had come up again."""
    late = Client((Order(2, "start", "i1", pause=5.0),))
    base = plan(body((Sleep(90.0),)), faults=(Fault("step", 2, "jump", -600.0),), restarts_when_healed=False)
    well(replace(base, clients=(*base.clients, late)))


def test_what_is_parked_is_tried_again_though_the_recovery_failed_once() -> None:
    """Seed 12421: the list of parked instances could not be read at the start, and was not read later."""
    faults = (
        Fault("boot", 0, "missing", target="body0"),
        Fault("poll", 3, "crash"),
        Fault("parked", 1, "fail"),
    )
    well(plan(body(()), faults=faults, heals_at=150.0, restarts_when_healed=False))


def test_a_message_held_twice_in_one_batch_is_one_row() -> None:
    """Seed 139: a result, a resume that could not be, and the result again: held, let go and held."""
    steps = (Nap(0.001, Call(1)), Branches(((Call(3, fails=1, fatal=True),), (Wait("b"), Wait("b", 0.5)))))
    resume = (Order(7, "resume", "i0"),)
    for nth in range(1, 5):
        well(plan(body(steps), orders=resume, faults=(Fault("hang", nth, "interrupt"),), gap=2.0))


@pytest.mark.parametrize("verb", ["suspend", "resume", "terminate"])
def test_between_two_generations_operators_may_come(verb: str) -> None:
    """Seed 27: history showed an end with something behind it."""
    fault = Fault("refuse", 1, "work", 3, "i0")
    well(plan(body((), (), ()), orders=(Order(2, verb, "i0"),), faults=(fault,), feeds=1))


def test_what_a_redone_half_left_over_comes_before_the_other_half() -> None:
    """Seed 6170: events held and let go were deferred in the first half; a newer one in the second passed them."""
    waiting = body((Branches(((Hasty("branch0", Call(5, attempts=2, first=7)),), (Wait("x", 0.5, True),))),))
    events = tuple(Order(key, "raise", "i0", event="x") for key in (10, 11, 12))
    resume = Client((Order(13, "resume", "i0", pause=0.007),), after_start=True)
    refusal = Fault("refuse", 2, effect="work", amount=3, target="i0")
    for seed in range(40):
        start = Client((Order(7, "start", "i0", pause=1.92),))
        knobs = Knobs(feeds=1, commit=0.002)
        well(
            Plan(
                seed,
                knobs,
                Program((waiting,)),
                (start, Client(events, after_start=True), resume),
                (refusal,),
            )
        )


def test_a_life_that_ends_in_the_batch_it_began_is_written_before_its_id_is_taken() -> None:
    """Seed 39539: started, given an event and replaced in one batch: the event left no trace at all."""
    clients = (
        Client((Order(1, "start", "i0", pause=3.11, with_id=False),)),
        Client((Order(3, "raise", "i0", pause=3.23, event="b"),)),
        Client((Order(2, "start", "i0", pause=4.48, with_id=False),)),
    )
    well(Plan(1, Knobs(gap=2.0), Program((body((Wait("b", 0.5, True),)),)), clients, ()))


def test_a_child_start_under_a_replaced_id_is_not_deleted_with_it() -> None:
    """Seed 69137: a client's start replaced a finished instance, and the child's start in the inbox went too."""
    program = Program((body((Sub(1, 1, attempts=2, id_of="i1"),)), body(())))
    clients = tuple(
        Client((Order(key, "start", f"i{key}", pause=pause),))
        for key, pause in ((0, 0.0), (1, 3.75), (2, 4.36))
    )
    well(Plan(1, Knobs(episodes=1, gap=2.0), program, clients, ()))


@pytest.mark.parametrize("path", sorted(FOUND.glob("*.plan")), ids=lambda path: path.stem)
def test_a_shrunken_plan_that_once_failed(path: Path) -> None:
    """`repr` of the plan, as `python -m simulation --seed N` shrinks it; its name says what went wrong."""
    plan: Plan = eval(path.read_text(), {**vars(plans), **vars(programs)})
    for store in ("memory", "sqlite") if not plan.knobs.workers else ("shared",):
        assert not run_plan(replace(plan, knobs=replace(plan.knobs, store=store))).problems
