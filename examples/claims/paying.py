"""Money: paid once however often it is tried, booked, and taken back if it cannot be booked."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count

import perdure as df
from examples.claims.connections import Office
from examples.claims.model import BankAnswer, Letter, Payment, PaymentOrder, Remedy, Settlement
from examples.claims.retries import AT_THE_BANK, FOR_A_DAY, UNTIL_DONE
from examples.claims.staff import ROLES
from examples.claims.telling import TOLD, tell

functions = df.Blueprint()

GATE = df.EntityId("PaymentGate", "bank")
A_SECOND, AFTER_AN_OUTAGE = 200, 5  # payments
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=10), timedelta(minutes=10)


@functions.entity
@dataclass
class PaymentGate:
    """Limits the rate of payments: it gives each its turn, and turns are rarer while payments wait for the bank."""

    free_at: datetime | None = None
    waiting: int = 0

    def admit(self, now: datetime) -> datetime:
        """When the next payment may go."""
        turn = max(now, self.free_at or now)
        self.free_at = turn + timedelta(seconds=1) / (AFTER_AN_OUTAGE if self.waiting else A_SECOND)
        return turn

    def wait(self) -> None:
        """A payment has begun to wait for the bank."""
        self.waiting += 1

    def leave(self) -> None:
        """The bank has answered it."""
        self.waiting = max(0, self.waiting - 1)


@functions.orchestrator(events={"NewAccount": None, "Remedy": Remedy, **TOLD})
async def pay(context: df.OrchestrationContext, order: PaymentOrder) -> Settlement:
    """Pay until it is paid and booked, or a person has settled it otherwise. Each order to the bank has a key."""
    for number in count(1):
        answer = await _until_answered(context, replace(order, key=f"{order.claim_id}/payment-{number}"))
        if answer.payment is None:
            problem = f"The bank refuses the payment: {answer.refusal}"
            await tell(context, _refused(order, number, answer.refusal))
        else:
            problem = await _booked_or_reversed(context, answer.payment)
        if not problem:
            return Settlement(answer.payment)
        remedy = await _remedied(context, order, problem)
        if remedy.action == "settled otherwise":
            break
    return Settlement(how=remedy.how)


async def _until_answered(context: df.OrchestrationContext, order: PaymentOrder) -> BankAnswer:
    """Ask the bank until it answers. Between rounds of attempts the payment waits at the gate for its turn."""
    pause, waits = FIRST_PAUSE, False
    while True:
        turn = await context.call_entity(GATE, "admit", context.current_utc_datetime, datetime)
        if turn > context.current_utc_datetime:
            await context.create_timer(turn)
        try:
            answer = await context.call_activity(move_money, order)
        except df.TaskFailedError:
            if not waits:
                context.signal_entity(GATE, "wait")
            waits = True
            context.set_custom_status("the bank does not answer")
            await context.create_timer(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            if waits:
                context.signal_entity(GATE, "leave")
            return answer


async def _booked_or_reversed(context: df.OrchestrationContext, payment: Payment) -> str:
    """Book the payment. One that cannot be booked is taken back; returns why, or ""."""
    try:
        await context.call_activity(book, payment)
    except df.TaskFailedError as failed:
        await context.call_activity(reverse, payment)
        return f"The payment was taken back, because the ledger refuses it: {failed.failure.message}"
    return ""


async def _remedied(context: df.OrchestrationContext, order: PaymentOrder, problem: str) -> Remedy:
    """Wait for a person, or for the customer's other account."""
    task = context.human_task(
        "Remedy",
        Remedy,
        title=f"${order.amount:,} for {order.claim_id} did not reach the customer",
        facts={"claim": order.claim_id, "amount": f"${order.amount:,}", "why": problem},
        roles=ROLES,
    )
    account = context.wait_for_external_event("NewAccount")
    if await context.task_any(task, account) is task:
        account.cancel()
        return task.result
    task.cancel()
    return Remedy(action="pay again", how="the customer gave another account")


@functions.activity(retry=AT_THE_BANK)
async def move_money(order: PaymentOrder, office: Office) -> BankAnswer:
    return await office.bank.pay(order, office.people.find(order.person))


@functions.activity(retry=FOR_A_DAY)
def book(payment: Payment, office: Office) -> None:
    office.ledger.enter(payment)


@functions.activity(retry=UNTIL_DONE)
async def reverse(payment: Payment, office: Office) -> None:
    await office.bank.reverse(payment)
    office.ledger.reverse(payment.key)


def _refused(order: PaymentOrder, number: int, why: str) -> Letter:
    return Letter(
        order.claim_id,
        f"{order.claim_id}-refused-{number}",
        "Your bank refused the payment",
        f"You are owed ${order.amount:,}, and that does not change. Your bank says: {why}. Give us another account.",
        order.person,
    )
