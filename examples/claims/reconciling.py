"""Every night the insurer's ledger is compared with the bank's book. Each difference becomes a task for a person."""

from datetime import datetime, timedelta

import perdure as df
from examples.claims.connections import Office
from examples.claims.model import Difference, Handled
from examples.claims.retries import UNTIL_DONE
from examples.claims.staff import ROLES

functions = df.Blueprint()

RECONCILIATION = "reconciliation"  # the id of the one instance that runs for ever
AT = timedelta(hours=2)  # after midnight UTC


@functions.orchestrator
async def reconcile_nightly(context: df.OrchestrationContext) -> None:
    """Sleep until the night, compare, hand out the differences, begin again."""
    await context.create_timer(_next_night(context.current_utc_datetime))
    for difference in await context.call_activity("compare_books", None, tuple[Difference, ...]):
        # Not awaited: a difference can take days. While it is open, the next night starts no second one.
        context.call_sub_orchestrator(clear_up, difference, f"difference-{difference.key.replace('/', '.')}")
    context.continue_as_new(None)


@functions.orchestrator(events={"Cleared": Handled})
async def clear_up(context: df.OrchestrationContext, difference: Difference) -> str:
    """A person finds out which of the two books is right."""
    cleared = await context.human_task(
        "Cleared",
        Handled,
        title=f"Ledger and bank differ about {difference.claim_id}: ${difference.ours:,} and ${difference.theirs:,}",
        facts={
            "key": difference.key,
            "in our ledger": f"${difference.ours:,}",
            "at the bank": f"${difference.theirs:,}",
        },
        roles=ROLES,
    )
    return cleared.how


@functions.activity(retry=UNTIL_DONE)
async def compare_books(office: Office) -> tuple[Difference, ...]:
    """Payments that only one of the two has, or that have another amount."""
    ours, theirs = office.ledger.standing(), await office.bank.payments()
    return tuple(
        Difference(
            key,
            (ours.get(key) or theirs[key]).claim_id,
            ours[key].amount if key in ours else 0,
            theirs[key].amount if key in theirs else 0,
        )
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    )


def _next_night(now: datetime) -> datetime:
    tonight = now.replace(hour=0, minute=0, second=0, microsecond=0) + AT
    return tonight if tonight > now else tonight + timedelta(days=1)
