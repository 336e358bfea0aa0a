"""A part of an application, in a module of its own.

billing = Blueprint(prefix="billing-", path="/billing")

@billing.activity
def charge(order: Order) -> Receipt: ...            # registered as billing-charge

app.register_functions(billing)
"""

from __future__ import annotations

from perdure.azure_names import AzureRegistration
from perdure.engine.functions.registry import Definition, where
from perdure.errors import RegistrationError


class Blueprint(AzureRegistration):
    """Functions that an `App` takes over with `app.register_functions(blueprint)`.

    It has the application's decorators. Several applications may register the same blueprint.

    Parameters:
        prefix: put before the name of each activity, orchestrator and entity; "billing-" makes `charge`
            "billing-charge". Functions passed by reference need not know it.
        path: put before the path of each route; begins with a slash.
    """

    def __init__(self, *, prefix: str = "", path: str = "") -> None:
        if path and (not path.startswith("/") or path.endswith("/")):
            raise RegistrationError(
                f"a blueprint's path begins with a slash and ends without one, not {path!r}"
            )
        super().__init__(prefix=prefix, path=path)
        self._taken_by: str | None = None

    def close(self, app: str) -> None:
        """Note that an application took it over: what came later would be in none."""
        self._taken_by = app

    def _add(self, definition: Definition) -> None:
        if self._taken_by is not None:
            raise RegistrationError(
                f"{where(definition.function)} comes too late: this blueprint is already registered in the "
                f"application {self._taken_by!r}, which would not have it. Import the module with the "
                "function before app.register_functions(...)"
            )
        super()._add(definition)
