"""The names of activities in messages to people: some are the function of a queue or a schedule."""

from __future__ import annotations

from typing import Final

from perdure.model.http_calls import BUILT_IN, HTTP_ACTIVITY

_MESSAGE: Final = f"{BUILT_IN}Message"
_OF: Final = {_MESSAGE: "queue", f"{BUILT_IN}Firing": "schedule"}
_WEBHOOK: Final = f"{BUILT_IN}Webhook:"


def is_message(activity: str) -> bool:
    """Whether an activity is the function of a queue, so that its input is a message."""
    return activity.startswith(f"{_MESSAGE}:")


def entity_of(activity: str) -> str:
    """The entity whose operation an activity runs, if it is offloaded; "" for other activities."""
    return activity[1:].partition("@")[0] if activity.startswith("@") else ""


def spoken(activity: str) -> str:
    """An activity in a sentence: "the activity 'charge'", "the function of the queue 'orders'"."""
    if activity == HTTP_ACTIVITY:
        return "the HTTP call"
    if activity.startswith(_WEBHOOK):
        return f"the webhook {activity.removeprefix(_WEBHOOK)!r}"
    kind, _, name = activity.removeprefix(BUILT_IN).partition(":")
    what = _OF.get(f"{BUILT_IN}{kind}") if activity.startswith(BUILT_IN) else None
    return f"the function of the {what} {name!r}" if what else f"the activity {activity!r}"
