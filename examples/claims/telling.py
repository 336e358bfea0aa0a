"""Messages to claimants and staff. One that cannot be delivered becomes a task for a person."""

import perdure as df
from examples.claims.connections import Office
from examples.claims.model import Handled, Letter
from examples.claims.retries import FOR_A_DAY, IN_TIME

functions = df.Blueprint()

TOLD = {"Told": Handled}
STAFF = ("adjuster", "supervisor")


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
            roles=STAFF,
        )


@functions.activity(retry=FOR_A_DAY)
async def send(letter: Letter, office: Office) -> None:
    await office.post.send(letter, office.people.find(letter.person))


@functions.activity(retry=IN_TIME)
async def remind(reminder: df.Reminder, office: Office) -> None:
    """Tell the people whose turn it is that a task waits, or that it has come to them."""
    what = "waits for you" if reminder.kind == "remind" else "was not decided in time, and is yours now"
    for role in reminder.roles:
        key = f"{reminder.instance_id}-{reminder.kind}-{reminder.number}-{role}"
        await office.post.send(
            Letter(reminder.instance_id, key, reminder.title, f"{reminder.title} It {what}.", role=role),
            office.people.find(""),
        )
