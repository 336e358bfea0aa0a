"""suspend, resume, terminate, rewind, purge: for one instance, several, or all that match a filter.

With a filter, the command first prints how many instances match and asks for confirmation. It can be stopped and run
again. The commands differ in a few words only, so they are one function under several names.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from perdure.cli.filters import ALL, selecting
from perdure.cli.options import ReasonOption, on_hub
from perdure.cli.target import HubTarget, remark
from perdure.cli.terminal import (
    EXIT_CODES,
    REFUSED,
    USAGE,
    can_ask,
    can_move,
    errors,
    fail,
    fail_with,
    print_json,
    warn_of,
)
from perdure.engine.client.bulk import VERBS, BulkOutcome, BulkRequest, Which
from perdure.engine.client.client import Client
from perdure.errors import EngineStopped, PerdureError, StoreError
from perdure.http.formatting import plain

INTERRUPTED = 130
_DONE_BY_WORKERS = frozenset({"resume", "rewind"})
commands = typer.Typer()


@dataclass(frozen=True)
class Words:
    """The texts of one command: "would be purged", "2 were purged"."""

    help: str
    past: str
    without: frozenset[str] = frozenset({"recursive"})


WORDS = {
    "terminate": Words("End instances immediately and permanently.", "terminated", without=frozenset()),
    "suspend": Words("Suspend instances until they are resumed. Their messages are stored.", "suspended"),
    "resume": Words("Resume suspended or parked instances.", "resumed"),
    "rewind": Words("Continue failed instances by retrying the calls that failed.", "rewound"),
    "purge": Words("Delete finished instances and their history.", "purged", without=frozenset({"reason"})),
}


@dataclass(frozen=True)
class Order:
    """The options of a command, except the selection of instances."""

    door: HubTarget
    asked: BulkRequest
    past: str
    yes: bool
    dry_run: bool
    at_most: int | None


def _command(verb: str, words: Words) -> Callable[..., None]:
    def command(
        target: HubTarget,
        instance_ids: Annotated[
            list[str] | None, typer.Argument(metavar="[ID]...", help="Instance ids.", show_default=False)
        ] = None,
        reason: ReasonOption = "",
        recursive: Annotated[
            bool, typer.Option("--recursive", help="Also terminate their sub-orchestrations.")
        ] = False,
        which: Which = ALL,
        everything: Annotated[
            bool, typer.Option("--all", help="Select every instance the command applies to.")
        ] = False,
        at_most: Annotated[
            int | None,
            typer.Option("--at-most", min=1, help="Stop after this many instances.", show_default=False),
        ] = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Change nothing. Print how many instances match.")
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    ) -> None:
        _demand_one(instance_ids, bool(which) or everything)
        asked = BulkRequest(verb=verb, reason=reason, recursive=recursive)
        order = Order(target, asked, words.past, yes, dry_run, at_most)
        if instance_ids:
            _do_named(order, instance_ids)
        else:
            _do_selected(order, which)

    command.__doc__ = (
        words.help
        + "\n\nPass ids, or use filters. With filters, you are asked to confirm the number of instances."
    )
    told = on_hub(selecting(command))
    signature = inspect.signature(told)
    kept = [p for p in signature.parameters.values() if p.name not in words.without]
    told.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return told


def _demand_one(instance_ids: list[str] | None, is_selected: bool) -> None:
    if bool(instance_ids) == is_selected:
        raise typer.BadParameter(
            "pass instance ids, or filters such as --status, --name and --older-than, or --all. Ids and filters "
            "exclude each other"
        )


# -------------------------------------------------------------------------------------------- by their ids


def _do_named(order: Order, instance_ids: list[str]) -> None:
    """Handle the instances one after the other. An error for one does not stop the others."""

    async def tell(client: Client) -> dict[str, PerdureError]:
        refused: dict[str, PerdureError] = {}
        for instance_id in instance_ids:
            try:
                await VERBS[order.asked.verb].apply(client, instance_id, order.asked)
            except (EngineStopped, StoreError):
                raise
            except PerdureError as error:
                refused[instance_id] = error
        if order.asked.verb in _DONE_BY_WORKERS and len(refused) < len(instance_ids):
            await remark(client)
        return refused

    refused = order.door.tell(tell)
    done = [one for one in instance_ids if one not in refused]
    if done:
        _say(order, *_told(order, done))
    for error in refused.values():
        said = fail_with if error is list(refused.values())[-1] else warn_of
        said(error, as_json=order.door.as_json)


def _told(order: Order, done: list[str]) -> tuple[dict[str, Any], str]:
    if order.asked.verb == "purge":
        return {"instancesDeleted": len(done)}, f"{_instances(len(done))} purged."
    if len(done) == 1:
        return {"instanceId": done[0]}, f"{done[0]} {_is(order)} {order.past}."
    return {"instanceIds": done}, f"{_instances(len(done))} {order.past}."


def _is(order: Order) -> str:
    return "is" if order.asked.verb == "suspend" else "was"


def _say(order: Order, data: dict[str, Any], sentence: str) -> None:
    if order.door.as_json:
        print_json(data)
    else:
        typer.echo(sentence)


# ------------------------------------------------------------------------------------------ by a filter


def _do_selected(order: Order, which: Which) -> None:
    found = order.door.ask(lambda client: client.bulk(order.asked.verb, dry_run=True, **which))
    if order.dry_run or not found.matched:
        _say(order, _as_data(found), _announced(order, found, "would be"))
        return
    if not order.yes:
        _confirm(order, found)
    so_far = [found]
    try:
        with _progress(order, found) as show:
            outcome = order.door.tell(lambda client: _perform(client, order, which, so_far, show))
    except KeyboardInterrupt:
        errors().print(
            f"stopped: {so_far[0].done if len(so_far) > 1 else 0:,} {order.past} so far, perhaps a few more. "
            "No instance is half done. Run the same command again to continue with the rest."
        )
        raise typer.Exit(INTERRUPTED) from None
    _report(order, outcome)


async def _perform(
    client: Client,
    order: Order,
    which: Which,
    so_far: list[BulkOutcome],
    show: Callable[[BulkOutcome], None],
) -> BulkOutcome:
    def progress(outcome: BulkOutcome) -> None:
        so_far[:] = [outcome, outcome]
        show(outcome)

    asked = order.asked
    return await client.bulk(
        asked.verb,
        reason=asked.reason,
        recursive=asked.recursive,
        at_most=order.at_most,
        progress=progress,
        **which,
    )


def _confirm(order: Order, found: BulkOutcome) -> None:
    if order.door.as_json or not can_ask():
        fail(
            f"{_announced(order, found, 'would be')} Add --yes to confirm, or --dry-run to change nothing",
            USAGE,
            as_json=order.door.as_json,
            kind="unconfirmed",
        )
    errors().print(plain(_announced(order, found, "will be")))
    if not typer.confirm("Continue?", err=True):
        raise typer.Exit(REFUSED)


def _announced(order: Order, found: BulkOutcome, will: str) -> str:
    if not found.matched:
        return f"No instance matches: nothing to {order.asked.verb}."
    count = found.matched if order.at_most is None else min(found.matched, order.at_most)
    shown = ", ".join(found.examples[:5]) + (", ..." if found.matched > 5 else "")
    return f"{_instances(count)} {will} {order.past}: {shown}."


@contextmanager
def _progress(order: Order, found: BulkOutcome) -> Iterator[Callable[[BulkOutcome], None]]:
    console = errors()
    total = found.matched if order.at_most is None else min(found.matched, order.at_most)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not can_move(), transient=True) as bar:
        task = bar.add_task(order.asked.verb, total=total)
        yield lambda outcome: bar.update(task, completed=outcome.seen, total=max(total, outcome.seen))


def _report(order: Order, outcome: BulkOutcome) -> None:
    console = errors()
    for instance_id, why in outcome.failures:
        console.print(plain(f"{instance_id}: {why}"), soft_wrap=True)
    rest = [f"{count:,} {why}" for why, count in outcome.skipped.items()]
    failed = [f"{outcome.failed:,} failed"] if outcome.failed else []
    told = ", ".join([f"{_instances(outcome.done)} {order.past}", *rest, *failed])
    _say(order, _as_data(outcome), f"{told}.")
    if outcome.failed:
        raise typer.Exit(REFUSED)


def _as_data(outcome: BulkOutcome) -> dict[str, Any]:
    data = {
        "verb": outcome.verb,
        "dryRun": outcome.dry_run,
        "matched": outcome.matched,
        "examples": outcome.examples,
        "done": outcome.done,
        "skipped": outcome.skipped,
        "failed": outcome.failed,
        "failures": [{"instanceId": instance_id, "reason": why} for instance_id, why in outcome.failures],
        "finished": outcome.finished,
    }
    return {**data, "instancesDeleted": outcome.done} if outcome.verb == "purge" else data


def _instances(count: int) -> str:
    return f"{count:,} {'instance' if count == 1 else 'instances'}"


for _verb, _words in WORDS.items():
    commands.command(_verb, epilog=EXIT_CODES)(_command(_verb, _words))
