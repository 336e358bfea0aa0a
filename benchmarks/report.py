"""From rows to tables: medians, ratios within one run, and what was aimed at."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Row = dict[str, Any]
PEERS = ("restate", "dbos", "dbos-sync")
NOISY = 0.3  # cores used by others, above which a figure should be taken again
COLUMNS = (
    ("W1 per s", "W1", "per_s"),
    ("W1 CPU s/1000", "W1", "cpu_s_per_1000"),
    ("W2 p50 ms", "W2", "p50_ms"),
    ("W2 p95 ms", "W2", "p95_ms"),
    ("W3 s", "W3", "seconds"),
    ("W4 s", "W4", "seconds"),
)
WAITING_COLUMNS = (
    ("waiting", "W5 start", "count"),
    ("start s", "W5 start", "seconds"),
    ("KB each", "W5 memory", "kb_each"),
    ("idle CPU s/10 s", "W5 idle", "cpu_s_per_10_s"),
    ("finish s", "W5 finish", "seconds"),
    ("KB evicted", "W5 evicted", "kb_each"),
    ("restart s", "W5 restart", "process_seconds"),
    ("of it open s", "W5 restart", "open_seconds"),
    ("finish cold s", "W5 finish cold", "seconds"),
)
BETTER_WHEN_MORE = {("W1", "per_s")}


@dataclass(frozen=True)
class Goal:
    """What was aimed at, what came out, and how that is to be called."""

    what: str
    found: str
    verdict: str


class Runs:
    """The rows of one run, by engine."""

    def __init__(self, rows: Sequence[Row], ours: str = "perdure") -> None:
        self.rows = rows
        self.ours = ours
        self.engines = list(dict.fromkeys(row["engine"] for row in rows))

    def median(self, engine: str, part: str, key: str) -> float | None:
        return _median(row.get(part, {}).get(key) for row in self.rows if row["engine"] == engine)

    def ratio(self, part: str, key: str, peer: str) -> float | None:
        """How many times better perdure is: the median over the repetitions, each compared with its own peer."""
        mine = [row.get(part, {}).get(key) for row in self.rows if row["engine"] == self.ours]
        its = [row.get(part, {}).get(key) for row in self.rows if row["engine"] == peer]
        pairs = [(a, b) for a, b in zip(mine, its, strict=False) if a and b]
        more = (part, key) in BETTER_WHEN_MORE
        return _median(a / b if more else b / a for a, b in pairs)

    def foreign(self, engine: str) -> float:
        """The most that others used of the machine during any workload of this engine."""
        found = [
            part["foreign_cores"]
            for row in self.rows
            if row["engine"] == engine
            for part in row.values()
            if isinstance(part, dict) and "foreign_cores" in part
        ]
        return max(found, default=0.0)


def tables(runs: Runs) -> str:
    """Everything a person wants to see."""
    parts = [figures(runs, COLUMNS), _ratios(runs)]
    if any("W5 start" in row for row in runs.rows):
        parts.append(figures(runs, WAITING_COLUMNS))
    parts += [
        table(["goal", "found", ""], [list(asdict(goal).values()) for goal in goals(runs)], text=(0, 2))
    ]
    parts += _remarks(runs)
    return "\n\n".join(part for part in parts if part)


def figures(runs: Runs, columns: Sequence[tuple[str, str, str]]) -> str:
    """The medians of all engines."""
    used = [c for c in columns if any(runs.median(engine, *c[1:]) is not None for engine in runs.engines)]
    lines = [
        [
            engine,
            *(_shown(runs.median(engine, *column[1:])) for column in used),
            f"{runs.foreign(engine):.2f}",
        ]
        for engine in runs.engines
    ]
    return table(["median", *(title for title, _, _ in used), "foreign cores"], lines) if used else ""


def _ratios(runs: Runs) -> str:
    columns = [c for c in COLUMNS if c[2] not in ("p95_ms", "cpu_s_per_1000")]
    lines = [
        [f"perdure / {peer}", *(_times(runs.ratio(part, key, peer)) for _, part, key in columns)]
        for peer in PEERS
        if peer in runs.engines
    ]
    return table(["times as fast", *(c[1] for c in columns)], lines) if lines else ""


def _remarks(runs: Runs) -> list[str]:
    found = [f"{row['engine']}: {row['error']}" for row in runs.rows if "error" in row]
    noisy = [engine for engine in runs.engines if runs.foreign(engine) > NOISY]
    if noisy:
        found.append(f"Others used more than {NOISY} cores beside {', '.join(noisy)}: take those again.")
    return found


# ------------------------------------------------------------------------------------------------------ goals


def goals(runs: Runs) -> list[Goal]:
    """The bars of the issue, as far as this run can tell."""
    found = [
        _ratio_goal(runs, "W1: times Restate's rate (5, goal 10)", "W1", "per_s", "restate", 5, 10),
        _commits_goal(runs),
        _ratio_goal(runs, "W3: times as fast as Restate (1, goal 10)", "W3", "seconds", "restate", 1, 10),
        _ratio_goal(runs, "W4: times as fast as Restate (1, goal 3)", "W4", "seconds", "restate", 1, 3),
        *(_ratio_goal(runs, f"{w}: times as fast as {peer} (1)", w, "seconds", peer, 1, 1)
          for w in ("W3", "W4") for peer in ("dbos", "dbos-sync")),
        _most(runs, "W5: KB a warm waiting instance (4)", "W5 memory", "kb_each", 4.0),
        _most(runs, "W5: KB an evicted one (0.5)", "W5 evicted", "kb_each", 0.5),
        _most(runs, "W5: s from the start of the process to the first answer (1)",
              "W5 restart", "process_seconds", 1.0),
    ]  # fmt: skip
    return [goal for goal in found if goal is not None]


def _ratio_goal(
    runs: Runs, what: str, part: str, key: str, peer: str, least: float, aim: float
) -> Goal | None:
    ratio = runs.ratio(part, key, peer)
    if ratio is None:
        return None
    return Goal(what, _times(ratio), "met" if ratio >= aim else "least met" if ratio >= least else "MISSED")


def _commits_goal(runs: Runs) -> Goal | None:
    ratio = _median(
        row["W2"]["p50_ms"] / row["W2"]["four_commits_ms"]
        for row in runs.rows
        if row["engine"] == "perdure" and "four_commits_ms" in row.get("W2", {})
    )
    if ratio is None:
        return None
    four = runs.median("perdure", "W2", "four_commits_ms")
    found = f"{ratio:.2f} x {_shown(four)} ms"
    return Goal(
        "W2: median at most 2 x four single-row FULL commits", found, "met" if ratio <= 2 else "MISSED"
    )


def _most(runs: Runs, what: str, part: str, key: str, most: float) -> Goal | None:
    value = runs.median("perdure", part, key)
    return None if value is None else Goal(what, _shown(value), "met" if value <= most else "MISSED")


# ----------------------------------------------------------------------------------------------------- shapes


def beside_table(rows: Sequence[Row]) -> str:
    """W1 and W2 beside CPU-bound activities, as parts of what they are alone."""
    alone = rows[0]
    lines = [
        [
            f"{row['busy']} {row.get('on', 'threads')}" if row["busy"] else "nothing",
            _shown(row["W1"]["per_s"]),
            f"{row['W1']['per_s'] / alone['W1']['per_s']:.2f}",
            f"{_fair_share(row):.2f}",
            _shown(row["W2"]["p50_ms"]),
            f"{row['W2']['p50_ms'] / alone['W2']['p50_ms']:.1f}",
        ]
        for row in rows
    ]
    heads = ["busy", "W1 per s", "of alone", "fair share", "W2 p50 ms", "times alone"]
    return table(heads, lines)


def _fair_share(row: Row) -> float:
    """What the loop may hope for: threads share one interpreter, processes the machine's cores."""
    if row.get("on") == "processes":
        return float(min(1.0, (os.cpu_count() or 1) / (row["busy"] + 1)))
    return float(1 / (row["busy"] + 1))


def table(heads: Sequence[str], lines: Iterable[Sequence[str]], *, text: Sequence[int] = (0,)) -> str:
    """Columns under heads; those of text stand at the left, those of numbers at the right."""
    rows = [list(heads), *map(list, lines)]
    widths = [max(len(row[no]) for row in rows) for no in range(len(heads))]

    def cell(no: int, content: str) -> str:
        return content.ljust(widths[no]) if no in text else content.rjust(widths[no])

    shown = ["  ".join(cell(no, content) for no, content in enumerate(row)).rstrip() for row in rows]
    return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:]])


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"
