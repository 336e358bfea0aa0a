"""Parts of the reference that are read from the code, so that they cannot lag behind it.

`<!-- table: commands -->` in a page becomes the commands of the CLI with their options, `<!-- table: routes -->` the
management API, `<!-- table: limits -->` what one instance and one payload may hold, `<!-- table: metrics -->` what a
server counts, and `<!-- table: rest -->` the public names that no page of the reference has yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

MANY = 20  # a command with more options has a flag for every setting
API = Path(__file__).parents[1] / "docs" / "reference" / "api"
MARK = re.compile(r"^<!-- table: (\w+) -->$", re.MULTILINE)


def filled(markdown: str) -> str:
    """A page with its tables put in. Raises KeyError for an unknown table."""
    return MARK.sub(lambda mark: TABLES[mark[1]](), markdown)


def commands() -> str:
    """Every command of `perdure`, in the order of its help."""
    import typer

    from perdure.cli.main import root

    group: Any = typer.main.get_command(root)
    return "\n\n".join(_commands(group, "perdure"))


def _commands(group: Any, path: str) -> list[str]:
    parts: list[str] = []
    for name, command in group.commands.items():
        whole = f"{path} {name}"
        if hasattr(command, "commands"):
            parts += _commands(command, whole)
        else:
            parts.append(_command(command, whole))
    return parts


def _command(command: Any, name: str) -> str:
    arguments = [_argument(one) for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    few = [one for one in options if "PERDURE_" not in (one.help or "")] if len(options) > MANY else options
    more = "\n\nAnd a flag for each [setting](settings.md)." if len(few) < len(options) else ""
    usage = " ".join([name, *arguments, *(["[OPTIONS]"] if options else [])])
    rows = [
        f"| `{', '.join(sorted(one.opts, key=len, reverse=True))}` | {_explained(one)} |" for one in options
    ]
    table = ["", "| option | |", "|---|---|", *rows] if rows else []
    text = (command.help or "").strip().split("\f")[0].strip()
    return "\n".join([f"## {name}", "", text, "", "```text", usage, "```", *table]) + more


def _argument(argument: Any) -> str:
    shown = (argument.metavar or argument.name.upper()).strip("[]").removesuffix("]...")
    shown = f"{shown}..." if argument.nargs == -1 else shown
    return shown if argument.required else f"[{shown}]"


def _explained(option: Any) -> str:
    said = (option.help or "").rstrip(".").replace("|", "\\|")
    variable = f" Environment: `{option.envvar}`." if option.envvar else ""
    default = option.default
    shown = "" if default in (None, False, "", ()) or callable(default) else f" Default `{default}`."
    return f"{said}.{variable}{shown}" if said else f"{variable}{shown}".strip() or "&nbsp;"


def routes() -> str:
    """Every route of the management API: what it is asked with, and what it does."""
    from perdure.http.api import access, bulk, entities, management, streams, triggers
    from perdure.http.api.instance_urls import MANAGEMENT

    rows: list[str] = []
    for module in (management, entities, bulk, streams, triggers, access):
        for endpoint in module.ENDPOINTS:
            text = (endpoint.handler.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
            told = re.sub(r"^[A-Z]+ [^:]+: ", "", text).strip().rstrip(".")
            if re.match(r"^[A-Z]+ \S+$", told):
                taken = re.findall(r"[?&](\w+)=", told)
                told = f"202; takes {', '.join(f'`{name}`' for name in taken)}" if taken else "202"
            path = endpoint.path.replace("{event:path}", "{event}")
            rows.append(
                f"| `{'/'.join(endpoint.methods)} {path}` | {told[:1].upper()}{told[1:]} | {endpoint.scope} |"
            )
    return "\n".join([f"Below `{MANAGEMENT}`:", "", "| route | answer | scope |", "|---|---|---|", *rows])


def limits() -> str:
    """Limits on sizes and counts."""
    from perdure.engine.core.ports import Limits
    from perdure.engine.engine import Settings
    from perdure.model import payload
    from perdure.model.instances import ID_LIMIT

    rows = [
        (
            "one input, result, event body",
            f"{payload.MAX_BYTES // 1024:,} KiB as JSON, {payload.MAX_DEPTH} levels deep",
        ),
        ("custom status", "16 KiB"),
        ("instance id", f"{ID_LIMIT} characters"),
        ("event name", "200 characters"),
        ("events that an instance keeps until it takes them", f"{Limits().buffered_events:,}"),
        ("pending requests of a worker", f"{Settings().queued_requests:,}"),
        ("time for which an orchestrator can block the loop", f"{Settings().interrupt_after:g} s"),
        ("time in which a repeat with the same id is recognised", "24 hours"),
    ]
    return "\n".join(["| what | limit |", "|---|---|", *(f"| {what} | {limit} |" for what, limit in rows)])


def metrics() -> str:
    """Every metric, under Prometheus' name: its kind, its labels, and what it says."""
    from perdure.telemetry.metrics import METRICS
    from perdure.telemetry.prometheus import labels_of, name_of

    rows = []
    for metric in METRICS:
        name = name_of(metric) + ("_total" if metric.kind == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in labels_of(metric))
        rows.append(f"| `{name}` | {metric.kind} | {labels} | {metric.says[:1].upper()}{metric.says[1:]} |")
    return "\n".join(["| metric | kind | labels | |", "|---|---|---|---|", *rows])


def rest() -> str:
    """Directives for every public name of `perdure` that no page of the API names; aliases."""
    import perdure
    from perdure.errors import EngineSignal, PerdureError

    shown = {
        name: getattr(perdure, name)
        for page in API.glob("*.md")
        for name in re.findall(r"^::: perdure\.(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        if hasattr(perdure, name)
    }
    also, blocks = [], []
    for name in sorted(set(perdure.__all__) - set(shown)):
        thing = getattr(perdure, name)
        if isinstance(thing, type) and issubclass(thing, PerdureError | EngineSignal):
            continue  # the page of the errors has them all
        twin = next((other for other, known in shown.items() if known is thing), None)
        if twin is not None:
            also.append(f"- `{name}` is `{twin}`.")
        else:
            shown[name] = thing
            blocks.append(f"::: perdure.{name}")
    return "\n".join([*blocks, "", "## Aliases", "", *also])


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "routes": routes,
    "limits": limits,
    "metrics": metrics,
    "rest": rest,
}
