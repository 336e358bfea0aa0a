"""Failures as data. They are text and never pickled, because other processes, languages and versions read them.

A failure contains the name of its exception's class and of the bases. So a policy or a handler can test for a kind of
failure as `except` does, even if it cannot import the class. Three members link to other failures: `cause` is the
exception it was raised from, `members` are those of an exception group, and `context` is the exception that was being
handled. Tests consider the first two. The third is for people.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator

import msgspec

Kind = type[BaseException] | str


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Type, message, stack and cause of an exception. `cause` is the exception it was raised from.

    `bases` are the qualified names of the base classes, `members` the exceptions of an exception group, and `context`
    the exception that was being handled. A name includes the module, except for built-in classes.
    """

    type: str
    message: str = ""
    stack: str = ""
    cause: Failure | None = None
    bases: tuple[str, ...] = ()
    members: tuple[Failure, ...] = ()
    context: Failure | None = None

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type

    def is_a(self, kind: Kind) -> bool:
        """Whether this failure, one of its causes, or a member of an exception group is of a class.

        Parameters:
            kind: the class, with its subclasses, as in `except`, or its name. A name without a dot means the built-in
                class if there is one, else a class in any module. A name with dots is complete
                ("shop.errors.CardDeclined") or an ending ("errors.CardDeclined").
        """
        return any(_is_of(found, kind) for found in parts_of(self))


def chain_of(failure: Failure) -> list[Failure]:
    """The failure and its causes, outermost first."""
    found: list[Failure] = []
    current: Failure | None = failure
    while current is not None:
        found.append(current)
        current = current.cause
    return found


def parts_of(failure: Failure) -> Iterator[Failure]:
    """The failure, its causes, and the members of all exception groups among them."""
    for found in chain_of(failure):
        yield found
        for member in found.members:
            yield from parts_of(member)


def told_of(failure: Failure, relation: str = "") -> Iterator[tuple[str, Failure]]:
    """A failure and all linked failures, for people, each with its relation to the one before it."""
    yield relation, failure
    for member in failure.members:
        yield from told_of(member, "one of them")
    if failure.cause is not None:
        yield from told_of(failure.cause, "caused by")
    if failure.context is not None:
        yield from told_of(failure.context, "raised while handling")


def name_of(kind: type[BaseException]) -> str:
    """A class's qualified name. The main module of a worker process is the main module of its parent."""
    if kind.__module__ == "builtins":
        return kind.__qualname__
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__
    return f"{module}.{kind.__qualname__}"


_PLAIN = (Exception, BaseException, object)


def bases_of(kind: type[BaseException]) -> tuple[str, ...]:
    """The names of the base classes, without Exception. For a class outside Exception, with BaseException."""
    bases = tuple(name_of(base) for base in kind.__mro__[1:] if base not in _PLAIN)
    return bases if issubclass(kind, Exception) else (*bases, "BaseException")


def _is_of(failure: Failure, kind: Kind) -> bool:
    bases = failure.bases or _bases_of_builtin(failure.type)
    names = (failure.type, *bases, "BaseException")
    if "BaseException" not in bases:
        names = (*names, "Exception")
    if not isinstance(kind, str):
        return name_of(kind) in names
    wanted = kind.removeprefix("builtins.")
    if wanted != kind or _builtin(wanted) is not None:
        return wanted in names
    return any(name == wanted or name.endswith(f".{wanted}") for name in names)


def _bases_of_builtin(name: str) -> tuple[str, ...]:
    """The bases for a failure that was stored without them, by an earlier version or by the engine itself."""
    kind = _builtin(name)
    return () if kind is None else bases_of(kind)


def _builtin(name: str) -> type[BaseException] | None:
    found = getattr(builtins, name, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None
