"""The Grafana board: overview, one orchestrator, activities, engine.

    python deploy/grafana/board.py      (make board)

The script writes perdure.json beside itself with Grafana's own typed builders, so that the structure of the file is
theirs. Import the file into Grafana, or provision it. Each panel answers a question; its description says what to do
about the answer. docs/how-to/monitor.md explains the metrics.

A gauge of the hub is the same at each of its workers, so `max` takes one of them. `sum` adds up what each worker did.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common as shared
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model

FILE = Path(__file__).with_name("perdure.json")
DOCUMENTATION = "https://github.com/perdure/perdure/blob/main/docs/how-to/monitor.md"
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True)
class Query:
    """An expression, and the name of each of its lines."""

    expression: str
    legend: str = ""
    exemplars: bool = False


@dataclass(frozen=True)
class Number:
    """One value of now, which turns from green to another colour at a limit."""

    title: str
    says: str
    expression: str
    unit: str = "short"
    limits: tuple[tuple[float, str], ...] = ()
    below: str = "green"  # the colour below the first limit


class Graph:
    """Values over time, a third of the board wide."""

    def __init__(
        self, title: str, says: str, *queries: Query, unit: str = "short", stacked: bool = False
    ) -> None:
        self.title, self.says, self.queries = title, says, queries
        self.unit, self.stacked = unit, stacked


@dataclass(frozen=True)
class Section:
    """A row of the board and what is below it."""

    title: str
    numbers: tuple[Number, ...] = ()
    graphs: tuple[Graph, ...] = ()


# ---------------------------------------------------------------------------------------------- expressions


def of(metric: str, *selectors: str) -> str:
    """The series of a metric that belong to the hub that the reader has chosen."""
    return f"{metric}{{{', '.join((HUB, *selectors))}}}"


def added(what: str, by: str = "") -> str:
    """What each worker did, added up for each value of the labels `by`."""
    return f"sum by ({by}) ({what})" if by else f"sum({what})"


def rate(metric: str, *selectors: str, by: str = "") -> str:
    """How often a second."""
    return added(f"rate({of(metric, *selectors)}[$__rate_interval])", by)


def per_minute(metric: str, *selectors: str, by: str = "") -> str:
    """How often a minute."""
    return f"60 * {rate(metric, *selectors, by=by)}"


def increase(metric: str, *selectors: str, over: str, by: str = "") -> str:
    """How often in that time."""
    return added(f"increase({of(metric, *selectors)}[{over}])", by)


def now(metric: str, *selectors: str, by: str) -> str:
    """The gauges of all workers, added up."""
    return added(of(metric, *selectors), by)


def hub_wide(metric: str, *selectors: str, by: str = "") -> str:
    """The gauge of the hub, from any of its workers."""
    return f"max by ({by}) ({of(metric, *selectors)})" if by else f"max({of(metric, *selectors)})"


def quantile(part: float, metric: str, *selectors: str, by: str = "") -> str:
    """The time that this part of all stay below."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({part}, {rate(f'{metric}_bucket', *selectors, by=labels)})"


def quantiles(metric: str, *selectors: str, exemplars: bool = False) -> tuple[Query, ...]:
    """Median, 95th and 99th percentile. The exemplars of the series are those of each of them: the last asks."""
    return tuple(
        Query(quantile(part, metric, *selectors), f"{part:.0%} stay below", exemplars and part == HIGHEST)
        for part in (0.5, 0.95, HIGHEST)
    )


# ---------------------------------------------------------------------------------------------- the sections

HUB = 'job="$job"'
HIGHEST = 0.99
IN_FLIGHT = 'status=~"Pending|Running|Suspended"'
PENDING = 'status="Pending"'
FAILED = 'status="Failed"'
ENDED = 'status!="ContinuedAsNew"'
ENDS = "perdure_instance_duration_seconds_count"  # has each status from the start, with 0

OVERVIEW = Section(
    "Overview",
    numbers=(
        Number(
            "Servers that answer",
            "Servers of this hub that Prometheus could scrape. If it is 0, nothing runs.",
            now("up", by=""),
            limits=((1, "green"),),
            below="red",
        ),
        Number(
            "In flight",
            "Instances that have not ended: pending, running or suspended.",
            added(hub_wide("perdure_instances", IN_FLIGHT, by="status")),
            below="blue",
        ),
        Number(
            "Parked",
            "Instances that perdure put aside because it could not continue them. Each waits until you act: "
            "`perdure list --parked`.",
            hub_wide("perdure_parked_instances"),
            limits=((1, "red"),),
        ),
        Number(
            "Failed in the last hour",
            "`perdure list --status Failed` lists them; `perdure rewind ID` repeats the failed steps.",
            increase(ENDS, FAILED, over="1h"),
            limits=((0.5, "orange"),),
        ),
        Number(
            "Share that failed",
            "Of the instances that ended in the last 15 minutes. The alert begins at 5 % of one orchestrator.",
            f"{increase(ENDS, FAILED, over='15m')} / {increase(ENDS, ENDED, over='15m')}",
            unit="percentunit",
            limits=((0.01, "orange"), (0.05, "red")),
        ),
        Number(
            "Oldest start that waits",
            "How long the oldest pending instance has waited for its first step. It grows when no worker has the "
            "orchestrator, or when the workers do not keep up.",
            hub_wide("perdure_instance_oldest_seconds", PENDING),
            unit="s",
            limits=((60, "orange"), (300, "red")),
        ),
    ),
    graphs=(
        Graph(
            "Started and ended per minute",
            "If more start than end for long, the hub fills up.",
            Query(per_minute("perdure_instance_started_total"), "started"),
            Query(per_minute(ENDS, by="status"), "{{status}}"),
        ),
        Graph(
            "Instances by status",
            "What the store holds. Ended instances stay until they are purged.",
            Query(hub_wide("perdure_instances", by="status"), "{{status}}"),
            stacked=True,
        ),
        Graph(
            "Failed per minute, by orchestrator",
            "Which orchestrator fails? Choose it below to see its errors.",
            Query(per_minute(ENDS, FAILED, by="orchestrator"), "{{orchestrator}}"),
        ),
        Graph(
            "How long 95 % of instances take, by orchestrator",
            "From the start to the end, waits for people and timers included.",
            Query(
                quantile(0.95, "perdure_instance_duration_seconds", ENDED, by="orchestrator"),
                "{{orchestrator}}",
            ),
            unit="s",
        ),
        Graph(
            "Age of the oldest, by status",
            "An old running instance may wait for a person; an old pending one waits for a worker.",
            Query(hub_wide("perdure_instance_oldest_seconds", by="status"), "{{status}}"),
            unit="s",
        ),
        Graph(
            "Replays per minute, by reason",
            "Instances whose code was brought back into memory. Many with the reason `evicted` mean that memory is "
            "short; `takeover` and `restart` mean that workers come and go.",
            Query(per_minute("perdure_replays_total", by="reason"), "{{reason}}"),
        ),
    ),
)

THIS = 'orchestrator="$orchestrator"'
ORCHESTRATOR = Section(
    "One orchestrator: $orchestrator",
    graphs=(
        Graph(
            "Started per minute, by origin",
            "Who starts it: a client, a parent, a schedule or a queue.",
            Query(per_minute("perdure_instance_started_total", THIS, by="origin"), "{{origin}}"),
            stacked=True,
        ),
        Graph(
            "Ended per minute, by status",
            "How its instances end.",
            Query(per_minute(ENDS, THIS, by="status"), "{{status}}"),
            stacked=True,
        ),
        Graph(
            "How long an instance takes",
            "From the start to the end. A point is an exemplar: it names the trace of a slow instance.",
            *quantiles("perdure_instance_duration_seconds", THIS, ENDED, exemplars=True),
            unit="s",
        ),
        Graph(
            "Failed per minute, by error",
            "The type of the exception that ended the instance.",
            Query(
                per_minute("perdure_instance_ended_total", THIS, FAILED, by="error_type"), "{{error_type}}"
            ),
        ),
        Graph(
            "Parked per minute, by reason",
            "perdure parks an instance that it cannot continue, for example after a change of code that its history "
            "does not fit.",
            Query(per_minute("perdure_instance_parked_total", THIS, by="reason"), "{{reason}}"),
        ),
        Graph(
            "Replays per minute, by reason",
            "How often its instances were brought back into memory, and why.",
            Query(per_minute("perdure_replays_total", THIS, by="reason"), "{{reason}}"),
        ),
        Graph(
            "How long a replay takes",
            "It grows with the length of the histories. Use continue_as_new for long loops.",
            *quantiles("perdure_replay_duration_seconds", THIS),
            unit="s",
        ),
        Graph(
            "Events in a replay, on average",
            "How long the histories are that are replayed.",
            Query(
                f"{rate('perdure_replay_events_total', THIS)} / {rate('perdure_replays_total', THIS)}",
                "events",
            ),
        ),
        Graph(
            "Events raised and dropped per minute",
            "Events that arrived for its instances. A dropped event met an instance that had ended, or was full.",
            Query(per_minute("perdure_event_raised_total", THIS), "raised"),
            Query(per_minute("perdure_event_dropped_total", THIS, by="reason"), "dropped: {{reason}}"),
        ),
    ),
)

CHOSEN = 'activity=~"$activity"'
UNSUCCESSFUL = 'outcome=~"failed|timed_out"'
ATTEMPTS = "perdure_activity_attempts_total"
ACTIVITIES = Section(
    "Activities",
    graphs=(
        Graph(
            "Attempts per minute, by activity",
            "How often each activity runs, repetitions included.",
            Query(per_minute(ATTEMPTS, CHOSEN, by="activity"), "{{activity}}"),
        ),
        Graph(
            "Share of attempts that fail",
            "Attempts that raised or timed out. Retries may still have saved their instances.",
            Query(
                f"{rate(ATTEMPTS, CHOSEN, UNSUCCESSFUL, by='activity')} / {rate(ATTEMPTS, CHOSEN, by='activity')}",
                "{{activity}}",
            ),
            unit="percentunit",
        ),
        Graph(
            "Attempts per minute, by outcome",
            "How attempts end. An attempt is dropped when its instance has ended before it.",
            Query(per_minute(ATTEMPTS, CHOSEN, by="outcome"), "{{outcome}}"),
            stacked=True,
        ),
        Graph(
            "How long 95 % of attempts take",
            "The time in the activity's code.",
            Query(quantile(0.95, "perdure_activity_duration_seconds", CHOSEN, by="activity"), "{{activity}}"),
            unit="s",
        ),
        Graph(
            "How long 95 % of attempts wait to begin",
            "From the moment it was scheduled until its code begins. Long waits mean too few places: raise the "
            "concurrency, or add workers.",
            Query(
                quantile(0.95, "perdure_activity_wait_seconds", CHOSEN, by="activity, host"),
                "{{activity}} ({{host}})",
            ),
            unit="s",
        ),
        Graph(
            "Retries per minute",
            "Attempts that a retry policy repeats. Many mean that something an activity calls is failing.",
            Query(per_minute("perdure_activity_retries_total", CHOSEN, by="activity"), "{{activity}}"),
        ),
        Graph(
            "Running now",
            "Attempts whose code runs.",
            Query(now("perdure_activity_running", CHOSEN, by="activity"), "{{activity}}"),
            stacked=True,
        ),
        Graph(
            "Queued now",
            "Attempts that wait for a free place. The alert begins when more than 100 wait and the queue grows.",
            Query(now("perdure_activity_queued", CHOSEN, by="activity"), "{{activity}}"),
            stacked=True,
        ),
        Graph(
            "Open waits, by event",
            "Instances that wait for an event from outside, such as a person's decision.",
            Query(hub_wide("perdure_wait_open", by="event"), "{{event}}"),
        ),
    ),
)

WORKER = 'worker=~"$worker"'
ENGINE = Section(
    "Engine",
    graphs=(
        Graph(
            "How busy the loop is, by worker",
            "One thread of a worker runs its orchestrators. The alert begins at 90 %: add workers.",
            Query(rate("perdure_loop_busy_seconds_total", WORKER, by="worker"), "{{worker}}"),
            unit="percentunit",
        ),
        Graph(
            "What the loop is busy with",
            "`decide` runs orchestrators, `commit` waits for the store, `release` starts activities and answers "
            "clients.",
            Query(rate("perdure_loop_busy_seconds_total", WORKER, by="part"), "{{part}}"),
            unit="percentunit",
            stacked=True,
        ),
        Graph(
            "How long a commit takes",
            "Each step of each instance waits for a commit. The alert begins at 250 ms on average: look at the disk "
            "or the database.",
            *quantiles("perdure_commit_duration_seconds", WORKER),
            unit="s",
        ),
        Graph(
            "Episodes in a commit, on average",
            "One commit stores the steps of many instances. It grows under load, and throughput with it.",
            Query(
                f"{rate('perdure_commit_batch_sum', WORKER, by='worker')} / "
                f"{rate('perdure_commit_batch_count', WORKER, by='worker')}",
                "{{worker}}",
            ),
        ),
        Graph(
            "How late timers fire",
            "From the moment a timer is due until its instance goes on.",
            *quantiles("perdure_timer_lateness_seconds", WORKER),
            unit="s",
        ),
        Graph(
            "Instances in memory",
            "Instances whose code is kept, so that it need not be replayed.",
            Query(now("perdure_warm_instances", WORKER, by="worker"), "{{worker}}"),
            stacked=True,
        ),
        Graph(
            "Memory of these instances",
            "An estimate of what they take.",
            Query(now("perdure_warm_memory_bytes", WORKER, by="worker"), "{{worker}}"),
            unit="bytes",
            stacked=True,
        ),
        Graph(
            "Put out of memory per minute",
            "Instances that were put away to make room, and are replayed when something arrives for them.",
            Query(per_minute("perdure_evictions_total", WORKER, by="worker"), "{{worker}}"),
        ),
        Graph(
            "Late results per minute",
            "Results of attempts that nothing waits for any more. Their work was done twice or for nothing.",
            Query(per_minute("perdure_stale_results_total", WORKER, by="worker"), "{{worker}}"),
        ),
        Graph(
            "Leases lost and taken over",
            "A worker that loses its lease stood still, or could not reach the database. Takeovers also happen at "
            "each deployment.",
            Query(
                increase("perdure_worker_leases_lost_total", WORKER, over="$__rate_interval", by="worker"),
                "lost by {{worker}}",
            ),
            Query(
                increase("perdure_worker_takeovers_total", WORKER, over="$__rate_interval", by="worker"),
                "taken over by {{worker}}",
            ),
        ),
        Graph(
            "Size of the store",
            "It grows with histories until they are purged: set a retention.",
            Query(hub_wide("perdure_store_size_bytes"), "store"),
            unit="bytes",
        ),
        Graph(
            "Requests denied, spans dropped, per minute",
            "Requests without a valid key, by reason; spans that no exporter took in time.",
            Query(per_minute("perdure_http_denied_total", WORKER, by="reason"), "denied: {{reason}}"),
            Query(per_minute("perdure_telemetry_dropped_total", WORKER), "spans dropped"),
        ),
    ),
)
SECTIONS = (OVERVIEW, ORCHESTRATOR, ACTIVITIES, ENGINE)


# ---------------------------------------------------------------------------------------------- the board


def board() -> model.Dashboard:
    """The whole board."""
    built = (
        dashboard.Dashboard("perdure")
        .uid("perdure")
        .description("Durable functions: how they are, one orchestrator, activities, and the engine.")
        .tags(["perdure"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(dashboard.DashboardLink("What the metrics mean").url(DOCUMENTATION).target_blank(True))
        .variables(list(variables()))
        .annotation(alerts())
    )
    numbers = itertools.count(1)
    for section in SECTIONS:
        built.with_row(dashboard.Row(section.title).id(next(numbers)))
        for panel in panels(section):
            built.with_panel(panel(next(numbers)))
    return built.build()


def variables() -> Iterator[Builder[model.VariableModel]]:
    """What the reader chooses at the top of the board."""
    yield dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    yield choice("job", "Hub", "label_values(perdure_instances, job)")
    yield choice(
        "orchestrator",
        "Orchestrator",
        'label_values(perdure_instance_started_total{job="$job"}, orchestrator)',
    )
    yield several("activity", "Activities", 'label_values(perdure_activity_running{job="$job"}, activity)')
    yield several("worker", "Workers", 'label_values(perdure_warm_instances{job="$job"}, worker)')


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable with one of the values that Prometheus has for a label."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(SOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def several(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable with any of these values; all of them at first."""
    everything = model.VariableOption(text="All", value="$__all", selected=True)
    return choice(name, label, query).multi(True).include_all(True).all_value(".*").current(everything)


def alerts() -> dashboard.AnnotationQuery:
    """Marks in all graphs where an alert of deploy/prometheus/alerts.yml was firing."""
    return (
        dashboard.AnnotationQuery()
        .name("Alerts")
        .datasource(SOURCE)
        .enable(True)
        .icon_color("red")
        .expr('ALERTS{alertname=~"Perdure.*", alertstate="firing", job="$job"}')
    )


def panels(section: Section) -> Iterable[Any]:
    """Functions of a panel's number that make the panels of a section."""
    for number in section.numbers:
        yield lambda key, number=number: number_panel(number).id(key)
    for graph in section.graphs:
        yield lambda key, graph=graph: graph_panel(graph).id(key)


def number_panel(number: Number) -> stat.Panel:
    """A panel of one value."""
    steps = [model.Threshold(value=None, color=number.below)]
    steps += [model.Threshold(value=limit, color=colour) for limit, colour in number.limits]
    return (
        stat.Panel()
        .title(number.title)
        .description(number.says)
        .datasource(SOURCE)
        .unit(number.unit)
        .thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
        .graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(shared.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("-")
        .span(4)
        .height(4)
        .with_target(target(Query(number.expression), "A"))
    )


def graph_panel(graph: Graph) -> timeseries.Panel:
    """A panel of values over time."""
    panel = (
        timeseries.Panel()
        .title(graph.title)
        .description(graph.says)
        .datasource(SOURCE)
        .unit(graph.unit)
        .min(0)
        .fill_opacity(30 if graph.stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            shared.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(shared.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        .span(8)
        .height(8)
    )
    if graph.stacked:
        panel.stacking(shared.StackingConfig().mode(common.StackingMode.NORMAL))
    for name, query in zip("ABCDEF", graph.queries, strict=False):
        panel.with_target(target(query, name))
    return panel


def target(query: Query, name: str) -> prometheus.Dataquery:
    """A query as Grafana sends it."""
    return (
        prometheus.Dataquery()
        .ref_id(name)
        .datasource(SOURCE)
        .expr(query.expression)
        .legend_format(query.legend or "__auto")
        .exemplar(query.exemplars)
        .range()
    )


def written() -> str:
    """The text of the file."""
    return json.dumps(board(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
