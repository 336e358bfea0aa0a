"""Azure's decorators for `App` and `Blueprint`: the same registrations with the names of azure-functions-durable.

Each takes the name of a parameter, which Azure's host needs for its binding. Here the name is checked, so that an
error in a migrated function is reported at once. Unlike in Azure, a decorator returns the function itself and not a
builder, so the function can be called, tested and passed on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from perdure.engine.client.client import Client
from perdure.engine.client.sync_client import SyncClient
from perdure.engine.functions.callables import is_async, resolvable, signature_of, where
from perdure.engine.functions.registry import Registry, orchestrator_parameters
from perdure.errors import RegistrationError

F = TypeVar("F", bound=Callable[..., Any])


class Decorators(Protocol):
    """The decorators that Azure's are built on."""

    registry: Registry

    def orchestrator(self, *, name: str | None, input_type: Any) -> Callable[[F], F]: ...

    def activity(self, *, name: str | None) -> Callable[[F], F]: ...

    def entity(self, *, name: str | None) -> Callable[[F], F]: ...


class AzureNames:
    """The decorators of Azure's `DFApp` and `Blueprint`, for a class with perdure's own."""

    def orchestration_trigger(
        self: Decorators, context_name: str, orchestration: str | None = None, input_type: Any = None
    ) -> Callable[[F], F]:
        """Register an orchestrator. Azure's name for `orchestrator`.

        Parameters:
            context_name: the name of the first parameter, which takes the context.
            orchestration: the registered name. Default: the function's own.
            input_type: the default type of `context.get_input()`.
        """
        register = self.orchestrator(name=orchestration, input_type=Any if input_type is None else input_type)

        def checked(function: F) -> F:
            orchestrator_parameters(function)
            _first_is(function, context_name)
            return register(function)

        return checked

    def activity_trigger(self: Decorators, input_name: str, activity: str | None = None) -> Callable[[F], F]:
        """Register an activity. Azure's name for `activity`.

        Parameters:
            input_name: the name of the parameter that takes the input.
            activity: the registered name. Default: the function's own.
        """
        register = self.activity(name=activity)

        def checked(function: F) -> F:
            _parameter(function, input_name, "input_name")
            return register(function)

        return checked

    def entity_trigger(
        self: Decorators, context_name: str, entity_name: str | None = None
    ) -> Callable[[F], F]:
        """Register an entity that is a function. Azure's name for `entity`.

        Parameters:
            context_name: the name of the first parameter, which takes the context.
            entity_name: the registered name, case-insensitive. Default: the function's own.
        """
        register = self.entity(name=entity_name)

        def checked(function: F) -> F:
            _first_is(function, context_name)
            return register(function)

        return checked

    def function_name(self: Decorators, name: str) -> Callable[[F], F]:
        """Set the registered name of a function. Azure's name for `name=`. Put it above the other decorators.

        The own name of the function stays an alias. Raises RegistrationError for a name that is already registered,
        and for a function that no decorator below has registered.
        """

        def rename(function: F) -> F:
            self.registry.rename(function, name)
            return function

        return rename

    def durable_client_input(
        self, client_name: str, task_hub: str | None = None, connection_name: str | None = None
    ) -> Callable[[F], F]:
        """Set the parameter of a client function that takes the client. Put it below `route`, as in Azure.

        It annotates the parameter with `Client` in an `async def` function, and with the blocking `SyncClient` in a
        `def` function.

        Raises RegistrationError for `task_hub` and `connection_name`, because the client always belongs to the
        application's own hub. `perdure.connect(url, hub=...)` connects to another one.
        """
        if task_hub is not None or connection_name is not None:
            raise RegistrationError(
                "durable_client_input does not support task_hub and connection_name, because its client belongs to "
                "the application's own hub. For another hub use perdure.connect(url, hub=...)"
            )

        def annotate(function: F) -> F:
            _parameter(function, client_name, "client_name")
            kind = Client if is_async(function) else SyncClient
            resolvable(function).__annotations__[client_name] = kind
            return function

        return annotate


def _first_is(function: Callable[..., Any], context_name: str) -> None:
    first = next(iter(signature_of(function)), "")
    if first != context_name:
        raise RegistrationError(
            f"{where(function)}: context_name is {context_name!r}, but the function's first parameter, which takes "
            f"the context, is {first!r}"
        )


def _parameter(function: Callable[..., Any], name: str, what: str) -> None:
    parameters = signature_of(function)
    if name not in parameters:
        raise RegistrationError(
            f"{where(function)}: {what} is {name!r}, but the function's parameters are "
            f"{', '.join(parameters) or 'none'}"
        )


__all__ = ["AzureNames"]
