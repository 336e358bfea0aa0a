"""The workbook for Application Insights: the five queries of this folder on one page.

    python deploy/application-insights/workbook.py      (make workbook)

The script writes workbook.json beside itself. Paste it into the advanced editor of a new workbook.
docs/how-to/application-insights.md explains what arrives.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parent
FILE: Final = FOLDER / "workbook.json"
SCHEMA: Final = "https://github.com/Microsoft/Application-Insights-Workbooks/blob/master/schema/workbook.json"
RESOURCE: Final = "microsoft.insights/components"
DAY: Final = 86_400_000  # milliseconds


class Part(NamedTuple):
    """One query of the page: its file, its heading, how to show the answer, and what to do about it."""

    file: str
    title: str
    visualization: str
    advice: str


PARTS: Final = (
    Part(
        "lifetimes.kql",
        "How long do orchestrations take?",
        "table",
        "Seconds from the start to the end, by orchestrator. A median of days is normal where people decide.",
    ),
    Part(
        "failures.kql",
        "Which errors end orchestrations, and in which step?",
        "table",
        "Mend the cause, then `perdure rewind --failed` continues the instances at the step that failed.",
    ),
    Part(
        "replays.kql",
        "How often is code brought back from its history, and why?",
        "timechart",
        "Many evictions: raise `warm_bytes`. Many takeovers: workers lose their leases; see the log of "
        "`perdure.engine`.",
    ),
    Part(
        "where-the-time-goes.kql",
        "Where does the time go?",
        "table",
        "Waits are for people and other systems, timers are yours, activities are work.",
    ),
    Part(
        "one-instance.kql",
        "One instance from start to end",
        "table",
        "Put the id of an instance into the field at the top. Its sub-orchestrations are included.",
    ),
)


def workbook() -> dict[str, Any]:
    """The document."""
    items = [
        _text("perdure", "# perdure\n\nOrchestrations, as the workers have reported them."),
        _parameters(),
    ]
    for part in PARTS:
        items += [_text(f"about {part.file}", f"## {part.title}\n\n{part.advice}"), _query(part)]
    return {"version": "Notebook/1.0", "items": items, "fallbackResourceIds": [], "$schema": SCHEMA}


def written() -> str:
    """The text of the file."""
    return json.dumps(workbook(), indent=2) + "\n"


def _text(name: str, text: str) -> dict[str, Any]:
    return {"type": 1, "content": {"json": text}, "name": name}


def _parameters() -> dict[str, Any]:
    spans = [3_600_000, 4 * 3_600_000, DAY, 7 * DAY, 30 * DAY]
    given = [
        {
            "version": "KqlParameterItem/1.0",
            "name": "TimeRange",
            "type": 4,
            "label": "Time range",
            "isRequired": True,
            "value": {"durationMs": DAY},
            "typeSettings": {
                "selectableValues": [{"durationMs": span} for span in spans],
                "allowCustom": True,
            },
        },
        {
            "version": "KqlParameterItem/1.0",
            "name": "Instance",
            "type": 1,
            "label": "Instance id",
            "value": "",
        },
    ]
    content = {
        "version": "KqlParameterItem/1.0",
        "parameters": given,
        "style": "pills",
        "queryType": 0,
        "resourceType": RESOURCE,
    }
    return {"type": 9, "content": content, "name": "parameters"}


def _query(part: Part) -> dict[str, Any]:
    content = {
        "version": "KqlItem/1.0",
        "query": _with_parameters((FOLDER / part.file).read_text()),
        "size": 0,
        "timeContextFromParameter": "TimeRange",
        "queryType": 0,
        "resourceType": RESOURCE,
        "visualization": part.visualization,
    }
    return {"type": 3, "content": content, "name": part.file}


def _with_parameters(query: str) -> str:
    """The query with the page's parameters in the places of its examples."""
    return query.replace("timestamp > ago(1d)", "timestamp {TimeRange}").replace('"claim-7"', '"{Instance}"')


if __name__ == "__main__":
    FILE.write_text(written())
