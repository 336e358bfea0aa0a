"""Human tasks: a wait for an external event that says what is asked, of whom, and until when.

The description is recorded with the wait, so that lists, pages and mails show the same facts for years. Who has
claimed a task, or to whom it was assigned, is no decision of the orchestrator and is in no history.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

import msgspec
from msgspec import Raw

NO_FACTS: Final = Raw(b"")  # omitted from JSON: it is the default itself


class Person(msgspec.Struct, frozen=True, gc=False):
    """A person whose identity is proven, and the roles of that moment.

    Parameters:
        name: how records name the person, such as an e-mail address.
        roles: the names of the roles, as tasks name them.
    """

    name: str
    roles: tuple[str, ...] = ()


class Escalation(msgspec.Struct, frozen=True, gc=False):
    """From `at` (microseconds) on, the task is for `role`."""

    at: int
    role: str


class HumanTaskDetails(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a wait says of itself.

    `facts` is a JSON object. `roles` may decide, until an escalation names another role; without roles and
    assignee, any proven person may, or anybody for a task of one decision. `of` and `number` belong to a task of
    several decisions: the id of its first wait, and which decision this wait is for, from 1.
    """

    title: str = ""
    facts: Raw = NO_FACTS
    roles: tuple[str, ...] = ()
    assignee: str = ""
    reminders: tuple[int, ...] = ()  # microseconds
    escalations: tuple[Escalation, ...] = ()
    then: str = ""
    decisions: int = 1
    number: int = 1
    of: int = -1

    @property
    def needs_person(self) -> bool:
        """Whether an answer counts only if its sender is proven."""
        return bool(self.roles or self.assignee or self.escalations) or self.decisions > 1

    def roles_at(self, escalated: int) -> tuple[str, ...]:
        """The roles after this many escalations."""
        return (self.escalations[escalated - 1].role,) if escalated else self.roles


class TaskRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the row of an open human task says of it. `given_by` are the people whose decisions it has."""

    details: HumanTaskDetails
    escalated: int = 0  # how many escalations have happened
    given_by: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that may decide now."""
        return self.details.roles_at(self.escalated)


def role_text(roles: Collection[str]) -> str:
    """The roles as a row has them: each between line feeds, which no name contains; "" for none."""
    return "\n".join(["", *roles, ""]) if roles else ""


def in_words(name: str) -> str:
    """A name of code in words: `ApproverDecision` and `approver_decision` are "Approver decision".

    Other text is returned as it is.
    """
    if not re.fullmatch(r"\w+", name):
        return name
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_+", " ", name).strip()
    return words[:1].upper() + words[1:].lower() if words else name


encode_task = msgspec.json.Encoder().encode
decode_task = msgspec.json.Decoder(TaskRecord).decode


def read_task(stored: bytes | None) -> TaskRecord | None:
    """What the row of a wait says of its task; None for a plain wait, and for a row that cannot be read."""
    try:
        return decode_task(stored) if stored is not None else None
    except msgspec.MsgspecError:  # damaged, or encrypted with a key that is missing
        return None


def why_unqualified(
    details: HumanTaskDetails,
    roles: Collection[str],
    given_by: Collection[str],
    person: str,
    roles_of_person: Collection[str],
) -> str:
    """Why this person's answer does not count for the task now, or "".

    `roles` are those that may decide now, `given_by` the people whose decisions the task has.
    """
    if not person:
        if not details.needs_person:
            return ""
        return "the task needs a decision by a known person, and the sender has not signed in as one"
    if person in given_by:
        return f"{person} has given a decision for this task, and another person must give the next"
    if roles and not set(roles) & set(roles_of_person):
        return f"the task is for the role {' or '.join(roles)}, which {person} does not have"
    return ""


__all__ = [
    "NO_FACTS",
    "Escalation",
    "HumanTaskDetails",
    "Person",
    "TaskRecord",
    "decode_task",
    "encode_task",
    "in_words",
    "read_task",
    "role_text",
    "why_unqualified",
]
