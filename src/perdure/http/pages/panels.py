"""Panels of applications beside the facts of a task. A panel that fails is a line on the page, and no error of it."""

from __future__ import annotations

import logging
from functools import lru_cache
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from perdure.http.running_engine import engine_of

if TYPE_CHECKING:
    from pathlib import Path

    from perdure.engine.client.client import Client
    from perdure.engine.client.tasks import OpenTask

log = logging.getLogger("perdure.http")
FAILED: Final = Markup(
    "<p class=\"problem\">The application's panel for this task failed. The server's log has the error.</p>"
)


async def panel_of(client: Client, task: OpenTask | None, base: str, *, by_link: bool = False) -> Markup:
    """What the application shows beside the facts of a task; empty without a panel.

    Parameters:
        base: the path of the pages.
        by_link: whether the holder of a signed link sees it.
    """
    panel = engine_of(client).registry.panels.get(task.event) if task is not None else None
    if panel is None or (by_link and not panel.on_links):
        return Markup("")
    try:
        values: Any = panel.values(task)
        if isawaitable(values):
            values = await values
        return Markup(_template(panel.template).render(**values, task=task, base=base))
    except Exception:
        log.exception("the panel %s for task %s failed", panel.template, task.id if task is not None else "")
        return FAILED


@lru_cache(64)
def _template(path: Path) -> Template:
    loader = FileSystemLoader(path.parent)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template(path.name)


__all__ = ["panel_of"]
