"""The glossary has each word of the project once, in alphabetical order."""

from itertools import pairwise

from tests.docs.shell import ROOT

GLOSSARY = ROOT / "docs" / "reference" / "glossary.md"
NEEDED = frozenset({
    "activity", "attempt", "audit log", "backlog", "batch", "blueprint", "claim", "client function",
    "continue-as-new",
    "custom status", "damaged", "dead letter", "durable timer", "entity", "episode", "epoch", "event", "execution",
    "executor", "external event", "fence", "history", "hub", "idempotency key", "incarnation", "instance", "lease",
    "message", "misfit", "non-determinism", "offload", "operation id", "orchestration", "orchestrator", "parked",
    "partition", "pool", "purge", "queue", "replay", "restart", "resume", "retry policy", "rewind", "schedule",
    "scope",
    "signed link", "store", "sub-orchestration", "suspend", "tag", "task", "task hub", "terminate", "tick", "wait",
    "warm", "worker",
})  # fmt: skip


def headings() -> list[str]:
    """The line above each definition."""
    lines = GLOSSARY.read_text().splitlines()
    return [above for above, line in pairwise(lines) if line.startswith(":   ")]


def test_each_word_is_there_once() -> None:
    words = [word for heading in headings() for word in heading.split(", ")]
    assert len(words) == len(set(words))
    assert set(words) >= NEEDED


def test_the_words_are_in_alphabetical_order() -> None:
    assert headings() == sorted(headings(), key=str.casefold)


def test_every_definition_has_a_word_and_one_paragraph() -> None:
    paragraphs = GLOSSARY.read_text().split("\n\n")[2:]
    assert len(paragraphs) == len(headings())
    assert all(paragraph.split("\n")[1].startswith(":   ") for paragraph in paragraphs)


def test_a_store_is_one_of_three() -> None:
    paragraphs = GLOSSARY.read_text().split("\n\n")
    assert "store\n:   Where the state is: SQLite, PostgreSQL or memory." in paragraphs
