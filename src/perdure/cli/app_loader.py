"""Finds the application that `perdure run` serves.

`app.py` is a file. Its folder goes on the path, as when Python runs it. A file inside a package is imported as a
module of the package, so that relative imports work. `package.module:app` is an import. If a package's `__init__.py`
has no application, the modules that usually have one are searched. A file or module must contain exactly one `App`,
or the target names the attribute. A folder with a host.json is an Azure Functions app.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.app import App
from perdure.blueprint import Blueprint
from perdure.cli import azure_app
from perdure.errors import PerdureError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from perdure.settings import Chosen


USUAL = ("app", "main", "application", "function_app")
"""The modules of a package that are searched for an application. The last is the name that Azure uses."""


class SourceError(PerdureError):
    """The target does not contain an application that can be served."""

    code = "source"


def load_app(target: str, chosen: Mapping[str, Chosen] | None = None, *, tells: bool = True) -> App:
    """Load the application of a target.

    Parameters:
        target: a file, a module or the folder of an Azure Functions app.
        chosen: the settings.
        tells: log what of an Azure Functions app has no effect here.

    Raises: SourceError, and HostedAppError for an Azure Functions app that cannot be served.
    """
    if azure_app.is_azure_app(target):
        return azure_app.load(target, chosen, tells=tells)
    place, _, attribute = target.rpartition(":") if ":" in target else (target, "", "")
    if not _is_file(place) and Path(place).is_file():
        raise SourceError(f"{place} is not a Python file. Give one, such as app.py, or package.module:app")
    module = _load_file(Path(place)) if _is_file(place) else _import(place)
    if attribute:
        return _named(module, attribute, place)
    return _only(*_module_with_apps(module, place))


def watched_folder(target: str) -> Path:
    """The folder to watch for changes of a target."""
    if azure_app.is_azure_app(target):
        return Path(target).resolve()
    place = target.rpartition(":")[0] if ":" in target else target
    return _root_of(Path(place).resolve())[0] if _is_file(place) else Path.cwd()


def watched_files(target: str) -> frozenset[str]:
    """The names of files to watch for changes besides Python files."""
    return azure_app.FILES if azure_app.is_azure_app(target) else frozenset()


def _is_file(place: str) -> bool:
    return place.endswith(".py")


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise SourceError(f"there is no file {path}. {_instead(path)}")
    root, name = _root_of(path.resolve())
    folder = str(root)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if "." in name or path.stem == "__init__":
        return _import(name)
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise SourceError(f"{path} cannot be loaded as a module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failed(str(path), error) from error
    return module


def _instead(path: Path) -> str:
    """A hint at the files that could be meant."""
    found = sorted(one.name for one in path.parent.glob("*.py"))[:5]
    here = f"This folder has {', '.join(found)}" if found else "This folder has no Python files"
    return f"Give the file that creates the App. {here}"


def _root_of(path: Path) -> tuple[Path, str]:
    """The folder to put on the path for a file, and the file's module name relative to it."""
    names = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        names.append(folder.name)
        folder = folder.parent
    return folder, ".".join(reversed(names))


def _import(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise SourceError(f"there is no module {name!r}. Give a file as path/to/app.py") from None
        raise _failed(name, error) from error
    except Exception as error:
        raise _failed(name, error) from error


def _failed(place: str, error: Exception) -> SourceError:
    """An error with the user's own frames of the traceback, without those of perdure and the import system."""
    ours = (__file__, importlib.__file__, "<frozen importlib")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    told = "".join([*traceback.format_list(frames), *traceback.format_exception_only(error)])
    return SourceError(f"{place} could not be imported:\n{told.rstrip()}")


def _named(module: ModuleType, attribute: str, place: str) -> App:
    found = getattr(module, attribute, None)
    if not isinstance(found, App):
        kind = "does not exist" if found is None else f"is a {type(found).__name__}, not a perdure.App"
        if isinstance(found, Blueprint):
            kind = (
                "is a Blueprint, which cannot be served. Add it to an App with register_functions and serve "
                "the App"
            )
        raise SourceError(f"{place}:{attribute} {kind}")
    return found


def _module_with_apps(module: ModuleType, place: str) -> tuple[ModuleType, str]:
    """The module itself if it contains an application; for a package, else the first of `USUAL` that does."""
    if _apps(module) or not hasattr(module, "__path__"):
        return module, place
    for usual in USUAL:
        name = f"{module.__name__}.{usual}"
        if importlib.util.find_spec(name) is not None:
            found = _import(name)
            if _apps(found):
                return found, name
    raise SourceError(
        f"the package {place} has no perdure.App, neither in its __init__.py nor in {', '.join(USUAL)}. Name the "
        f"module that has it: {module.__name__}.module:app"
    )


def _apps(module: ModuleType) -> dict[str, App]:
    return {name: value for name, value in vars(module).items() if isinstance(value, App)}


def _only(module: ModuleType, place: str) -> App:
    apps = _apps(module)
    distinct = {id(app): app for app in apps.values()}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if not distinct:
        raise SourceError(f'{place} has no perdure.App. Add `app = perdure.App("name")` to it')
    names = ", ".join(sorted(apps))
    raise SourceError(f"{place} has several applications ({names}). Name one: {_choice(place, apps)}")


def _choice(place: str, apps: dict[str, App]) -> str:
    return f"{place}:{sorted(apps)[0]}"
