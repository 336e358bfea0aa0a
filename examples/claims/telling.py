"""Messages to claimants and staff. One that cannot be delivered becomes a task for a person."""

import perdure as df
from examples.claims import staff
from examples.claims.connections import Office
from examples.claims.model import Handled, Letter
from examples.claims.people import UNKNOWN
from examples.claims.retries import FOR_A_DAY, IN_TIME

functions = df.Blueprint()

TOLD = {"Told": Handled}
NEW = "It is for you to decide."
NEWS = {
    "remind": "It still waits for you.",
    "escalate": "It was not decided in time, and is yours now.",
}


async def tell(context: df.OrchestrationContext, letter: Letter) -> None:
    """Send a letter. When the post has failed for a day, wait for a person who tells the customer otherwise."""
    try:
        await context.call_activity(send, letter)
    except df.TaskFailedError as failed:
        await context.human_task(
            "Told",
            Handled,
            title=f"The post cannot reach the customer of {letter.claim_id}: tell them by phone or by letter",
            facts={"subject": letter.subject, "text": letter.text, "why": failed.failure.message},
            roles=staff.ROLES,
        )


@functions.activity(retry=FOR_A_DAY)
async def send(letter: Letter, office: Office) -> None:
    await office.post.send(letter, office.people.find(letter.person))


@functions.activity(retry=IN_TIME)
async def remind(
    reminder: df.Reminder, office: Office, client: df.Client, context: df.ActivityContext
) -> None:
    """Send each person whose turn it is a mail with a link of their own to the task."""
    for person in staff.in_roles(reminder.roles):
        letter = Letter(
            reminder.instance_id,
            f"{context.idempotency_key}-{person.name}",
            reminder.title,
            f"{reminder.title} {NEWS[reminder.kind] if reminder.number else NEW}",
            colleague=person.name,
        )
        await office.post.send(letter, UNKNOWN, await link_for(client, reminder, person))


async def link_for(client: df.Client, reminder: df.Reminder, person: df.Person) -> str:
    """A link that shows the task and decides it once in the person's name; "" if no server could answer it.

    It is made here and not by the orchestrator, so that no history has it.
    """
    try:
        return await client.create_event_link(reminder.instance_id, reminder.event, for_=person)
    except RuntimeError:
        return ""
