"""From a folder to the functions in it, in both of Azure's programming models, with all faults told at once.

Both models are read as one: the decorators tell each function as the JSON that a function.json holds.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from perdure.engine.functions.callables import where
from perdure.errors import HostedAppError
from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.folder import Folder, read_json, refusal

NAMESPACE: Final = "__app__"
"""The package that the folders of the first model are parts of, for their relative imports."""

TRIGGERS: Final = frozenset(
    {
        "orchestrationtrigger",
        "activitytrigger",
        "entitytrigger",
        "httptrigger",
        "timertrigger",
        "queuetrigger",
    }
)
BINDINGS: Final = frozenset({"durableclient", "orchestrationclient", "http", "queue"})
HOSTED: Final = TRIGGERS | BINDINGS
"""The triggers and bindings that are served, in lower case."""


@dataclass(frozen=True)
class Binding:
    """A trigger, an input or an output of a function, with its properties as function.json has them."""

    kind: str  # in lower case
    name: str
    properties: Mapping[str, Any]

    @property
    def is_trigger(self) -> bool:
        return self.kind.endswith("trigger")

    @property
    def is_output(self) -> bool:
        """Whether the function sets it. Both models say so; the client's old name says nothing."""
        return str(self.properties.get("direction", "in")).casefold() in ("out", "1")

    def get(self, name: str, default: Any = None) -> Any:
        """A property; what is null is not given."""
        found = self.properties.get(name)
        return default if found is None else found


@dataclass(frozen=True)
class AppFunction:
    """A function of an app.

    Parameters:
        name: what Azure calls it.
        function: what the app registers: a handle of the SDK's, a middleware, or the user's own function.
        bindings: its trigger and all others.
        place: where it is written, for people.
        retry: what `@app.retry` says, as data.
        is_decorated: it is of the second model, where orchestrators can call it by its builder.
    """

    name: str
    function: Callable[..., Any]
    bindings: tuple[Binding, ...]
    place: str
    retry: Mapping[str, Any] | None = None
    is_decorated: bool = False

    @cached_property
    def trigger(self) -> Binding:
        return next(one for one in self.bindings if one.is_trigger)

    @cached_property
    def others(self) -> tuple[Binding, ...]:
        """Its bindings but for the trigger."""
        return tuple(one for one in self.bindings if not one.is_trigger)


@dataclass
class Found:
    """What has been found so far. `missing` are triggers and bindings that are not hosted."""

    functions: list[AppFunction] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def functions_in(folder: Folder, *, partial: bool = False) -> tuple[list[AppFunction], list[str]]:
    """The functions of an app, and what of it is left out. Raises HostedAppError with every fault.

    Parameters:
        partial: serve the rest where triggers or bindings are not hosted; else that is a fault.
    """
    found = Found()
    with_path(folder.path)
    script = folder.path / (folder.setting("PYTHON_SCRIPT_FILE_NAME") or "function_app.py")
    documents = sorted(folder.path.glob("*/function.json"))
    if script.is_file() and not any(_describes(document, script) for document in documents):
        _decorated(folder, script, found)
    elif documents:
        for document in documents:
            _described(folder, document, found)
    else:
        found.faults.append(
            f"{folder.path} has neither {script.name} nor a folder with a function.json: no function to serve"
        )
    _check(folder, found)
    if found.faults or (found.missing and not partial):
        raise _refusal(folder, found, partial)
    return found.functions, found.missing


def _describes(document: Path, script: Path) -> bool:
    """Whether a function.json is about a function of this script, which then holds plain functions."""
    try:
        named = read_json(document).get("scriptFile")
    except HostedAppError:  # told with the faults of its folder
        return False
    return bool(named) and (document.parent / str(named)).resolve() == script.resolve()


def with_path(path: Path) -> None:
    """Put the folder on the path, where Azure's worker has it."""
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))


def _refusal(folder: Folder, found: Found, partial: bool) -> HostedAppError:
    faults = [*found.faults, *([] if partial else found.missing)]
    advice = (
        "--partial serves the rest: a trigger that is not hosted never fires, what is set on such an output is "
        "dropped, and a function that has such an input fails when it is called"
        if found.missing and not partial and not found.faults
        else ""
    )
    return refusal(folder, faults, advice)


# ------------------------------------------------------------------------------------------ decorators


def _decorated(folder: Folder, script: Path, found: Found) -> None:
    """The functions of the second model: one application object in one module."""
    module = _loaded(script.stem, script, found)
    if module is None:
        return
    apps = {id(one): one for one in vars(module).values() if isinstance(one, sdk.FunctionRegister)}
    if len(apps) != 1:
        count = "no application" if not apps else f"{len(apps)} applications"
        found.faults.append(f"{script}: it holds {count}: one df.DFApp or func.FunctionApp is needed")
        return
    try:
        listed = next(iter(apps.values())).get_functions()
    except ValueError as error:
        found.faults.append(f"{script}: {error}")
        return
    for one in listed:
        found.functions.append(_of_decorators(one))


def _of_decorators(listed: Any) -> AppFunction:
    document = json.loads(listed.get_function_json())
    function = listed.get_user_function()
    return AppFunction(
        str(listed.get_function_name()),
        function,
        tuple(_binding(one) for one in document["bindings"]),
        where(_own(function)),
        listed.get_settings_dict("retry_policy"),
        is_decorated=True,
    )


def _own(function: Any) -> Any:
    """The user's function, whatever the decorators made of it."""
    for look in (sdk.orchestrator_of, sdk.entity_of, sdk.client_function_of):
        behind = look(function)
        if behind.is_handle:
            return behind.function
    return function


def _loaded(name: str, script: Path, found: Found) -> ModuleType | None:
    """A module by its file; None, and a fault, where it cannot be imported."""
    spec = importlib.util.spec_from_file_location(name, script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        found.faults.append(_failed_import(script, error))
        return None
    return module


def _failed_import(script: Path, error: Exception) -> str:
    frames = [
        one
        for one in traceback.extract_tb(error.__traceback__)
        if one.filename.startswith(str(script.parent))
    ]
    at = f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""
    told = "".join(traceback.format_exception_only(error)).strip()
    hint = ". Run pip install -r requirements.txt" if isinstance(error, ModuleNotFoundError) else ""
    return f"{script}: it cannot be imported: {told}{at}{hint}"


# ------------------------------------------------------------------------------------------ function.json


def _described(folder: Folder, path: Path, found: Found) -> None:
    """A function of the first model: a folder with a function.json."""
    try:
        document = read_json(path)
    except HostedAppError as error:
        found.faults.append(str(error))
        return
    name = path.parent.name
    if document.get("disabled"):
        return
    bindings = tuple(_binding(one) for one in document.get("bindings", ()) if isinstance(one, dict))
    triggers = sum(one.is_trigger for one in bindings)
    if triggers != 1:
        found.faults.append(f"{path}: it has {triggers or 'no'} triggers, and a function has one")
        return
    function = _entry_point(folder, path.parent, document, found)
    if function is not None:
        found.functions.append(
            AppFunction(name, function, bindings, where(_own(function)), document.get("retry"))
        )


def _entry_point(
    folder: Folder, place: Path, document: Mapping[str, Any], found: Found
) -> Callable[..., Any] | None:
    script = place / str(document.get("scriptFile") or "__init__.py")
    if not script.is_file():
        found.faults.append(f"{place / 'function.json'}: its scriptFile {script} does not exist")
        return None
    module = _part(folder, script, found)
    if module is None:
        return None
    named = document.get("entryPoint")
    for name in [str(named)] if named else ["main", place.name]:
        function = getattr(module, name, None)
        if callable(function):
            return function  # type: ignore[no-any-return]
    found.faults.append(f"{script}: it has no function {named or 'main'!r}, the entry point of {place.name}")
    return None


def _part(folder: Folder, script: Path, found: Found) -> ModuleType | None:
    """A script as the part of the package that Azure's worker makes of an app's folder."""
    if NAMESPACE not in sys.modules or list(sys.modules[NAMESPACE].__path__) != [str(folder.path)]:
        for stale in [one for one in sys.modules if one.split(".")[0] == NAMESPACE]:
            del sys.modules[stale]
        package = ModuleType(NAMESPACE)
        package.__path__ = [str(folder.path)]
        sys.modules[NAMESPACE] = package
    parts = script.resolve().relative_to(folder.path.resolve()).with_suffix("").parts
    name = ".".join((NAMESPACE, *(part for part in parts if part != "__init__")))
    try:
        return importlib.import_module(name)
    except Exception as error:
        found.faults.append(_failed_import(script, error))
        return None


def _binding(described: Mapping[str, Any]) -> Binding:
    kind = str(described.get("type", "")).casefold()
    return Binding(kind, str(described.get("name", "")), described)


# ------------------------------------------------------------------------------------------ checks


def _check(folder: Folder, found: Found) -> None:
    found.functions[:] = [one for one in found.functions if not _is_disabled(folder, one)]
    for function in found.functions:
        found.faults.extend(_faults_of(function))
        found.missing.extend(_missing_of(function))
    found.faults.extend(_taken_names(found.functions))


def _is_disabled(folder: Folder, function: AppFunction) -> bool:
    allowed = folder.host.get("functions")
    if isinstance(allowed, Mapping):  # a list that settings override: functions__0, functions__1
        allowed = list(allowed.values())
    if isinstance(allowed, list) and function.name not in allowed:
        return True
    return (folder.setting(f"AzureWebJobs.{function.name}.Disabled") or "").casefold() in ("true", "1")


def _faults_of(function: AppFunction) -> Iterator[str]:
    own = _own(function.function)
    if function.trigger.kind == "orchestrationtrigger" and inspect.iscoroutinefunction(own):
        yield (
            f"{function.name}: the orchestrator {where(own)} is async def: azure-functions-durable 1.x drives "
            "generators, so write def and yield"
        )


def _missing_of(function: AppFunction) -> Iterator[str]:
    for binding in function.bindings:
        if binding.kind not in HOSTED:
            told = binding.properties.get("type")
            yield f"{function.name}: {told} {binding.name!r} is not hosted here ({function.place})"


def _taken_names(functions: list[AppFunction]) -> Iterator[str]:
    """Names that two functions of a kind have; case does not tell them apart on Azure."""
    taken: dict[tuple[str, str], AppFunction] = {}
    for function in functions:
        key = function.trigger.kind, function.name.casefold()
        other = taken.setdefault(key, function)
        if other is not function:
            yield f"{function.name}: the name is taken by {other.place}, and case does not count"


__all__ = ["HOSTED", "AppFunction", "Binding", "functions_in", "with_path"]
