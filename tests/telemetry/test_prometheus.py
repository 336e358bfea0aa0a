"""A real Prometheus scrapes a worker, and answers every expression of the board and of the alerts."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from prometheus_client.openmetrics import parser
from prometheus_client.parser import text_string_to_metric_families

import perdure as df
from deploy.grafana import board
from perdure.http.api.instance_urls import MANAGEMENT
from perdure.telemetry.metrics import METRICS
from perdure.telemetry.prometheus import name_of
from tests.docs.shell import ROOT
from tests.http.serving import served
from tests.telemetry.prometheus import Prometheus, Target, prometheus

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
BOARD: dict[str, Any] = json.loads(board.FILE.read_text())
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
KEY = "the-key-of-the-administrator"
CHOSEN = {
    "job": "perdure",
    "orchestrator": "claim",
    "activity": ".*",
    "worker": ".*",
    "__rate_interval": "1h",
}
"""What the reader of the board has chosen. All that the test does is within the last hour."""

pytestmark = pytest.mark.timeout(600)  # six waits of at most 60 s, on a machine that is busy


def an_office(assessing: str = "assess") -> df.App:
    """Orchestrators that complete, fail, wait, retry, and park: `changed` after a change of its code."""
    app = df.App("office")

    @app.activity
    def assess(amount: int) -> int:
        return amount

    @app.activity
    def assess_again(amount: int) -> int:
        return amount

    @app.activity(retry=df.RetryPolicy(first_interval=0.001, max_attempts=2))
    def fail() -> None:
        raise ValueError("the bank says no")

    @app.orchestrator(events={"Decision": bool})
    async def claim(context: df.OrchestrationContext, amount: int) -> int:
        await context.create_timer(0.001)
        if amount > 1_000:
            await context.wait_for_external_event("Decision", bool)
        if amount < 0:
            await context.call_activity(fail)
        return await context.call_activity(assess, amount)

    @app.orchestrator
    async def parent(context: df.OrchestrationContext) -> int:
        return await context.call_sub_orchestrator(claim, 5)

    @app.orchestrator
    async def changed(context: df.OrchestrationContext) -> int:
        await context.call_activity(assessing, 1)
        return await context.wait_for_external_event("Decision", int)

    return app


@dataclass(frozen=True)
class Scraped:
    """A Prometheus that has scraped what happened."""

    prometheus: Prometheus
    address: str  # of the server that is open


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Scraped]:
    """Instances of two lives of an office, seen by a Prometheus from the beginning of the second."""
    store = f"sqlite:///{tmp_path / 'office.db'}"
    asyncio.run(first_life(store))
    open_office = an_office("assess_again").asgi(store=store, access="open")
    locked_office = df.App("locked").asgi(store="memory:", admin_key=KEY)
    with served(open_office) as opened, served(locked_office) as locked:
        targets = {
            "perdure": Target(opened),
            "perdure-locked": Target(locked, key_for_metrics(locked)),
            "perdure-without-key": Target(locked),
        }
        with prometheus(tmp_path, targets, RULES) as running:
            running.wait_for("count(count by (job) (perdure_instances))", reaches(2))
            second_life(opened)
            running.wait_for('sum(perdure_instance_ended_total{status="Completed"})', reaches(5))
            running.wait_for('sum(perdure_instance_ended_total{status="Failed"})', reaches(1))
            running.wait_for("sum(perdure_instance_parked_total)", reaches(1))
            yield Scraped(running, opened)


async def first_life(store: str) -> None:
    """Instances that wait, and one whose code will have changed."""
    async with an_office().running(store=store) as client:
        for number in range(2):
            await client.start_new("claim", f"waiting-{number}", 5_000)
        await client.start_new("changed", "changed")
        async for status in client.watch("changed"):
            if status.waiting is not None and status.waiting.events:
                return


def second_life(address: str) -> None:
    """What Prometheus sees: completed, failed and waiting instances, children, an event, a replay, a parked one."""
    with httpx2.Client(base_url=address + MANAGEMENT, trust_env=False, timeout=60) as http:
        for number, amount in enumerate((1, 2, -1)):
            http.post(f"/orchestrators/claim/c-{number}", json=amount).raise_for_status()
        http.post("/orchestrators/parent/p-0").raise_for_status()
        for instance, body in (("waiting-0", True), ("changed", 1)):
            http.post(f"/instances/{instance}/raiseEvent/Decision", json=body).raise_for_status()


def key_for_metrics(address: str) -> str:
    """A key that may read the metrics and nothing else."""
    answer = httpx2.post(
        f"{address}{MANAGEMENT}/keys",
        json={"name": "prometheus", "scopes": ["metrics"]},
        headers={"x-functions-key": KEY},
        trust_env=False,
        timeout=60,
    )
    answer.raise_for_status()
    return str(answer.json()["secret"])


def reaches(number: float):
    """Whether the one value of an answer is at least this."""
    return lambda found: bool(found) and found[0].value >= number


def filled(expression: str) -> str:
    """An expression as Grafana sends it."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: CHOSEN[found[1] or found[2]], expression)


# One test, so that all processes of a parallel run together start one Prometheus.


def test_a_real_prometheus_answers_every_question(scraped: Scraped, subtests: pytest.Subtests) -> None:
    for panel, target in TARGETS:
        with subtests.test(panel["title"], expression=target["expr"]):
            has_data(scraped, target["expr"])
    for alert in ALERTS:
        with subtests.test(alert["alert"]):
            asks_for_what_is_there(scraped, alert["expr"])
    for check in CHECKS:
        with subtests.test(check.__name__):
            check(scraped)


# ---------------------------------------------------------------------------------------------- the board

TARGETS = [(panel, target) for panel in BOARD["panels"] for target in panel.get("targets", ())]
SELECTOR = re.compile(r"\bperdure_\w+(?:\{[^}]*\})?")


def has_data(scraped: Scraped, expression: str) -> None:
    assert scraped.prometheus.ask(filled(expression)), "no data"
    for selector in SELECTOR.findall(expression):
        assert scraped.prometheus.ask(f"count({filled(selector)})"), selector


def points_lead_to_the_traces_of_slow_instances(scraped: Scraped) -> None:
    [asked] = [target["expr"] for _, target in TARGETS if target["exemplar"]]
    found = scraped.prometheus.exemplars(filled(asked))
    assert found and all(re.fullmatch("[0-9a-f]{32}", one["labels"]["trace_id"]) for one in found)


def choices_are_those_of_the_hub(scraped: Scraped) -> None:
    asked = {
        one["name"]: re.fullmatch(r"label_values\((.+), (\w+)\)", one["query"])
        for one in BOARD["templating"]["list"]
        if one["type"] == "query"
    }
    found = {
        name: set(scraped.prometheus.values_of(matched[2], filled(matched[1])))
        for name, matched in asked.items()
        if matched
    }
    assert found["job"] == {"perdure", "perdure-locked"}
    assert {"claim", "parent", "changed"} <= found["orchestrator"]
    assert {"assess", "assess_again", "fail"} <= found["activity"]
    assert len(found["worker"]) == 1


def alerts_are_marked(scraped: Scraped) -> None:
    [annotation] = BOARD["annotations"]["list"]
    found = scraped.prometheus.wait_for(filled(annotation["expr"]))
    assert {one.labels["alertname"] for one in found} <= {alert["alert"] for alert in ALERTS}


# ---------------------------------------------------------------------------------------------- the alerts


def asks_for_what_is_there(scraped: Scraped, expression: str) -> None:
    scraped.prometheus.ask(expression)
    for selector in SELECTOR.findall(expression):
        assert scraped.prometheus.ask(f"count({selector})"), selector


def every_alert_is_evaluated_without_an_error(scraped: Scraped) -> None:
    rules = scraped.prometheus.rules()
    assert {name: rule["health"] for name, rule in rules.items()} == {a["alert"]: "ok" for a in ALERTS}


def what_went_wrong_is_alarmed_on(scraped: Scraped) -> None:
    """One instance failed; the server that Prometheus has no key for counts as down."""
    scraped.prometheus.wait_for(
        'ALERTS{alertname="PerdureFailures", orchestrator="claim", alertstate="firing"}'
    )
    scraped.prometheus.wait_for('ALERTS{alertname="PerdureServerDown", job="perdure-without-key"}')


def failures_are_told_apart_by_the_error_that_caused_them(scraped: Scraped) -> None:
    [failed] = scraped.prometheus.ask('perdure_instance_ended_total{status="Failed"} > 0')
    assert (failed.labels["orchestrator"], failed.labels["error_type"]) == ("claim", "ValueError")
    [parked] = scraped.prometheus.ask("perdure_instance_parked_total > 0")
    assert (parked.labels["orchestrator"], parked.labels["reason"]) == ("changed", "nondeterminism")


# ---------------------------------------------------------------------------------------------- the text


def promtool_finds_nothing_to_criticise(scraped: Scraped) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text(scraped), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def both_formats_have_the_same_metrics(scraped: Scraped) -> None:
    plain = {family.name for family in text_string_to_metric_families(text(scraped))}
    opened = {family.name for family in parser.text_string_to_metric_families(text(scraped, OPENMETRICS))}
    assert opened == plain == {name_of(metric) for metric in METRICS}


def text(scraped: Scraped, accept: str = "text/plain") -> str:
    """What /metrics says in this format."""
    answer = httpx2.get(f"{scraped.address}/metrics", headers={"accept": accept}, trust_env=False, timeout=60)
    return answer.raise_for_status().text


CHECKS = (
    points_lead_to_the_traces_of_slow_instances,
    choices_are_those_of_the_hub,
    alerts_are_marked,
    every_alert_is_evaluated_without_an_error,
    what_went_wrong_is_alarmed_on,
    failures_are_told_apart_by_the_error_that_caused_them,
    promtool_finds_nothing_to_criticise,
    both_formats_have_the_same_metrics,
)
