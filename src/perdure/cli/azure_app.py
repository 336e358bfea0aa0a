"""Loads the folder of an Azure Functions app, for `perdure run`.

The package that hosts such apps, and Azure's own packages, are imported only if the target is such a folder.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.errors import ExtraMissing, HostedAppError, PerdureError
from perdure.server.event_loop import early_loop
from perdure.settings import HOSTED, TABLE, choose
from perdure.store import is_postgres, sqlite_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perdure.app import App
    from perdure.hosts.azure_functions.application import HostedApp
    from perdure.settings import Chosen

log = logging.getLogger("perdure.azure")
FILES = frozenset({"host.json", "local.settings.json", "function.json"})
"""Files that say what an app is, besides its code."""
_QUIET = ("azure", "uvicorn", "asyncio", "urllib3", "httpx", "httpcore")
"""Loggers of libraries, which do not follow the level that host.json says for the app's own lines."""


def is_azure_app(target: str) -> bool:
    """Whether a target is the folder of an Azure Functions app."""
    return (Path(target) / "host.json").is_file()


def at_home(target: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any], list[str]]:
    """The target and the given settings with absolute paths, because the process changes into the app's folder.

    The app's settings go into the environment, where they can also set this command's own settings; their names are
    returned. The port of local.settings.json applies unless another port is given. Raises HostedAppError.
    """
    from perdure.hosts.azure_functions.folder import export_settings, read_folder

    folder = read_folder(Path(target).resolve())
    exported = export_settings(folder)
    settled = dict(given)
    rows = choose(TABLE, given, source="flag")
    path = sqlite_path(rows["store"].value)
    if path:
        settled["store"] = f"sqlite:///{Path(path).resolve()}"
    port = folder.local.get("LocalHttpPort")
    if port is not None and rows["port"].source == "default":
        settled["port"] = str(port)
    processes = folder.setting("FUNCTIONS_WORKER_PROCESS_COUNT")
    if processes and rows["workers"].source == "default" and is_postgres(rows["store"].value):
        settled["workers"] = processes
    return str(folder.path), settled, exported


def load(target: str, chosen: Mapping[str, Chosen] | None = None, *, tells: bool = True) -> App:
    """Load the app in a folder, and change into the folder. `tells`: log what of it has no effect here.

    Raises HostedAppError, and ExtraMissing without Azure's packages.
    """
    try:
        from perdure.hosts.azure_functions.application import load as load_hosted
    except PerdureError:
        raise
    except Exception as error:  # the packages run their own code when they are imported
        advice = f"Run pip install -r {Path(target) / 'requirements.txt'}, or pip install 'perdure[azure]'"
        if isinstance(error, ImportError) and not _are_installed():
            raise ExtraMissing(
                f"{target} is an Azure Functions app, and its packages are not installed ({error}). {advice}"
            ) from error
        raise HostedAppError(
            f"{target} is an Azure Functions app, and the installed packages of Azure cannot be imported "
            f"({type(error).__name__}: {error}). They may not fit each other, or this version of Python. {advice}"
        ) from error
    values = {name: one.value for name, one in (chosen or choose(HOSTED, {})).items()}

    async def import_it() -> HostedApp:
        return load_hosted(
            target,
            partial=values["partial"],
            links=values["azure_links"],
            events=values["azure_events"],
            queues=values["azure_queues"],
            enter=True,
            serve=True,
        )

    # Azure's worker imports an app in its event loop: clients and locks that modules make belong to that loop.
    hosted = early_loop().run_until_complete(import_it())
    logging.getLogger().setLevel(hosted.settings.log_level)
    for library in _QUIET:
        logging.getLogger(library).setLevel(logging.WARNING)
    for line in hosted.told if tells else ():
        log.warning("%s", line)
    return hosted.app


def _are_installed() -> bool:
    try:
        return all(find_spec(name) is not None for name in ("azure.functions", "azure.durable_functions"))
    except ImportError:  # there is no package azure at all
        return False


__all__ = ["FILES", "at_home", "is_azure_app", "load"]
