"""The board in deploy/grafana: the file is what its script writes, and Grafana can show it."""

import itertools
import json
import re
from typing import Any

from deploy.grafana import board
from perdure.telemetry.metrics import METRICS
from perdure.telemetry.prometheus import name_of

BOARD: dict[str, Any] = json.loads(board.FILE.read_text())
PANELS: list[dict[str, Any]] = BOARD["panels"]
WITH_QUERIES = [panel for panel in PANELS if panel["type"] != "row"]
VARIABLES = {one["name"]: one for one in BOARD["templating"]["list"]}
OF_GRAFANA = {"__rate_interval"}
COLUMNS = 24


def test_the_file_is_what_the_script_writes() -> None:
    assert board.FILE.read_text() == board.written(), "run `make board`"


def test_ids_and_titles_are_unique_within_a_section() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids) and all(isinstance(one, int) and one > 0 for one in ids)
    section, titles = "", []
    for panel in PANELS:
        section = panel["title"] if panel["type"] == "row" else section
        titles.append((section, panel["title"]))
    assert len(set(titles)) == len(titles)


def test_sections_are_those_that_were_promised() -> None:
    rows = [panel["title"] for panel in PANELS if panel["type"] == "row"]
    assert rows == ["Overview", "One orchestrator: $orchestrator", "Activities", "Engine"]
    assert all(row["panels"] == [] and not row["collapsed"] for row in PANELS if row["type"] == "row")


def test_panels_fit_the_grid_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        x, y, w, h = (place.get(key, 0) for key in "xywh")
        cells = set(itertools.product(range(x, x + w), range(y, y + h)))
        assert w > 0 and h > 0 and x + w <= COLUMNS, panel["title"]
        assert not taken & cells, panel["title"]
        taken |= cells


def test_each_panel_asks_the_chosen_source_and_explains_itself() -> None:
    for panel in WITH_QUERIES:
        assert len(panel["description"]) > 20 and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for asking in (panel, *panel["targets"]):
            assert asking["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["expr"].strip() and target["legendFormat"] and target["range"]
            assert 'job="$job"' in target["expr"], "each expression is of the chosen hub"


def test_variables_are_there_before_they_are_used() -> None:
    assert (
        VARIABLES["datasource"]["type"] == "datasource" and VARIABLES["datasource"]["query"] == "prometheus"
    )
    known: set[str] = set()
    for name, variable in VARIABLES.items():
        assert named_in(json.dumps([variable.get("query"), variable.get("datasource")])) <= known
        known.add(name)
    assert named_in(json.dumps(PANELS)) == known | OF_GRAFANA


def named_in(text: str) -> set[str]:
    return {first or second for first, second in re.findall(r"\$(?:\{(\w+)\}|(\w+))", text)} - {"__all"}


def test_all_lines_of_a_graph_with_labels_are_told_apart() -> None:
    for panel in WITH_QUERIES:
        for target in panel["targets"]:
            grouped = re.match(
                r"^(?:60 \* )?(?:sum|max|histogram_quantile\(\S+ sum) by \(([^)]*)\)", target["expr"]
            )
            labels = set(grouped[1].replace(" ", "").split(",")) - {"le"} if grouped else set()
            assert labels == set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])), target["expr"]


def test_the_board_shows_every_metric_and_no_other() -> None:
    asked = {
        re.sub(r"_(bucket|sum|count|total)$", "", name)
        for name in re.findall(r"\bperdure_\w+", json.dumps([panel["targets"] for panel in WITH_QUERIES]))
    }
    there = {name_of(metric) for metric in METRICS}
    assert asked == there
