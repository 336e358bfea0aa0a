"""What reaches Application Insights when `perdure run --telemetry azure-monitor` serves a claims office.

Twenty claims are filed. One fails, and one is still open when the server is stopped and started again.
"""

import asyncio
import json
import runpy
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2
import pytest

import perdure as df
from tests.telemetry import kusto
from tests.telemetry.ingestion import KEY, TABLES, Ingestion, ingestion
from tests.telemetry.office import MARKER
from tests.telemetry.servers import ENDS_WITHIN, ROOT, TOKEN, served

pytestmark = pytest.mark.xdist_group("application insights")  # the servers run once
OFFICE = ROOT / "tests" / "telemetry" / "office.py"
OPTIONS = (
    "--telemetry",
    "azure-monitor",
    "--no-telemetry-messages",
    "--tracking",
    "--tracking-replays",
)
CLAIMS = 20
OF_THE_EXPORTER = ("_OTELRESOURCE_", "Item_Success_Count")
"""Metrics that the exporters send about themselves."""
DYNAMIC = ("customDimensions", "customMeasurements")
Row = dict[str, Any]


@dataclass
class Office:
    """What arrived, and what the servers said."""

    arrived: Ingestion
    said: str
    statuses: dict[str, df.OrchestrationStatus]
    pages: str

    @cached_property
    def tables(self) -> dict[str, list[Row]]:
        return self.arrived.tables


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    folder = tmp_path_factory.mktemp("office")
    with ingestion() as found:
        return asyncio.run(_worked(folder, found))


async def _worked(folder: Path, found: Ingestion) -> Office:
    ids = [f"claim-{number}" for number in range(1, CLAIMS + 1)]
    with served(folder, OFFICE, found.environment, *OPTIONS) as first:
        async with df.connect(first.address, key=TOKEN) as client:
            for number, instance_id in enumerate(ids, 1):
                await client.start_new("claim", instance_id, {"number": number, "of": MARKER})
            done = [client.wait_for_completion(one, ENDS_WITHIN) for one in ids[:-1]]
            statuses = {one.instance_id: one for one in await asyncio.gather(*done)}
            open_one = await client.get_status(ids[-1])
            while "Approval" not in open_one.waiting_for:
                open_one = await client.get_status(ids[-1])
            pages = await _pages(first.address, ids[-1])
        await asyncio.to_thread(first.stop)
    with served(folder, OFFICE, found.environment, *OPTIONS) as second:
        async with df.connect(second.address, key=TOKEN) as client:
            await client.raise_event(ids[-1], "Approval", {"by": MARKER})
            statuses[ids[-1]] = await client.wait_for_completion(ids[-1], ENDS_WITHIN)
        await asyncio.to_thread(second.stop)
    return Office(found, first.said + second.said, statuses, pages)


async def _pages(address: str, instance_id: str) -> str:
    """What the server shows to people and programs of itself and of an instance."""
    headers = {"x-functions-key": TOKEN}
    paths = ["/", f"/instances/{instance_id}", "/readyz", "/healthz", "/settings", "/metrics"]
    async with httpx2.AsyncClient(base_url=address, headers=headers, follow_redirects=True) as http:
        return "\n".join([(await http.get(path)).text for path in paths])


def rows_of(table: list[Row], name: str) -> list[Row]:
    return [row for row in table if row["name"] == name]


def dimension(row: Row, name: str) -> str:
    return row["customDimensions"].get(name, "")


def instance_of(row: Row) -> str:
    names = ("durabletask.task.instance_id", "instance_id", "prop__instanceId")
    return next((dimension(row, name) for name in names if dimension(row, name)), "")


# ------------------------------------------------------------------------------------- section 3.9, row by row


def test_everything_arrives_as_the_service_expects_it(office: Office):
    assert office.arrived.paths == {"/v2.1/track"}
    for envelope in office.arrived.envelopes:
        assert envelope["iKey"] == KEY
        assert envelope["data"]["baseType"] in TABLES


def test_an_orchestration_is_a_request_with_its_lifetime_and_its_failure(office: Office):
    claims = rows_of(office.tables["requests"], "orchestration:claim")
    assert Counter(instance_of(row) for row in claims) == Counter([*office.statuses])
    for row in claims:
        status = office.statuses[instance_of(row)]
        assert row["success"] is (status.runtime_status.name == "Completed")
        lifetime = (status.last_updated_time - status.created_time).total_seconds() * 1_000
        assert 0 < row["duration"] <= lifetime + 1
    assert [instance_of(row) for row in claims if not row["success"]] == ["claim-7"]
    bodies = rows_of(office.tables["requests"], "activity:assess")
    assert len(bodies) == CLAIMS + 1  # one has two attempts
    assert [row["success"] for row in bodies].count(False) == 2


def test_calls_timers_and_waits_are_dependencies(office: Office):
    table = office.tables["dependencies"]
    assert {(row["name"], row["type"]) for row in table} == {
        ("create_orchestration:claim", "Queue Message"),
        ("orchestration_event:Approval", "Queue Message"),
        ("activity:assess", "N/A"),
        ("activity:notify", "N/A"),
        ("orchestration:payment", "N/A"),
        ("entity:ledger:add", "N/A"),
        ("orchestration:claim:timer", "InProc"),
        ("orchestration:payment:timer", "InProc"),
        ("orchestration:claim:wait:Approval", "InProc"),
    }
    assert len(rows_of(table, "activity:assess")) == CLAIMS + 1
    assert len(rows_of(table, "orchestration:payment")) == CLAIMS - 1
    [wait] = rows_of(table, "orchestration:claim:wait:Approval")
    [event] = rows_of(table, "orchestration_event:Approval")
    [link] = json.loads(dimension(wait, "_MS.links"))
    assert (link["operation_Id"], link["id"]) == (event["operation_Id"], event["id"])


def test_exceptions_belong_to_the_call_that_failed(office: Office):
    calls = office.tables["requests"] + office.tables["dependencies"]
    failed = {row["id"] for row in calls if not row["success"]}
    assert {row["operation_ParentId"] for row in office.tables["exceptions"]} == failed
    found = Counter(row["type"] for row in office.tables["exceptions"])
    assert found == {"ValueError": 4, "perdure.errors.TaskFailedError": 1}  # bodies and calls; the claim


def test_log_records_are_traces_of_the_span_that_wrote_them(office: Office):
    spans = {row["id"]: row["name"] for row in office.tables["requests"]}
    by_text = {"filed": "orchestration:claim", "assessing": "activity:assess", "booked": "entity:ledger:add"}
    for text, name in by_text.items():
        found = [row for row in office.tables["traces"] if row["message"] == text]
        assert len(found) >= CLAIMS - 1
        assert {spans[row["operation_ParentId"]] for row in found} == {name}
        assert {row["severityLevel"] for row in found} == {1}
        assert {dimension(row, "hub") for row in found} == {"office"}
    assessed = [row for row in office.tables["traces"] if row["message"] == "assessing"]
    assert {(dimension(row, "orchestrator"), dimension(row, "activity")) for row in assessed} == {
        ("claim", "assess")
    }
    assert Counter(instance_of(row) for row in assessed) == Counter([*office.statuses, "claim-7"])


def test_each_end_is_a_custom_event(office: Office):
    events = office.tables["customEvents"]
    assert {row["name"] for row in events} == {"OrchestrationEnded"}
    claims = {instance_of(row): row for row in events if dimension(row, "orchestrator") == "claim"}
    assert len(events) == len(claims) + CLAIMS - 1
    assert set(claims) == set(office.statuses)
    for instance_id, row in claims.items():
        status = office.statuses[instance_id]
        assert dimension(row, "status") == status.runtime_status.name
        lifetime = (status.last_updated_time - status.created_time).total_seconds()
        assert row["customMeasurements"]["seconds"] == pytest.approx(lifetime, abs=0.001)
        assert row["customMeasurements"]["replays"] == status.replays == (instance_id == "claim-20")
        assert row["customMeasurements"]["episodes"] > 0
    assert dimension(claims["claim-7"], "error_type") == "ValueError"


def test_metrics_are_custom_metrics_with_their_labels(office: Office):
    def total(name: str, **labels: str) -> float:
        rows = rows_of(office.tables["customMetrics"], name)
        return sum(row["valueSum"] for row in rows if labels.items() <= row["customDimensions"].items())

    assert total("perdure.instance.started", orchestrator="claim", origin="client") == CLAIMS
    assert total("perdure.instance.started", orchestrator="payment", origin="parent") == CLAIMS - 1
    assert total("perdure.instance.ended", orchestrator="claim", status="Completed") == CLAIMS - 1
    assert total("perdure.instance.ended", orchestrator="claim", status="Failed") == 1
    assert total("perdure.activity.retries", activity="assess") == 1
    assert total("perdure.replays", orchestrator="claim", reason="restart") == 1
    lifetimes = rows_of(office.tables["customMetrics"], "perdure.instance.duration")
    assert sum(row["valueCount"] for row in lifetimes) == 2 * CLAIMS - 1
    instances = [row for row in office.tables["customMetrics"] if "claim-" in json.dumps(row)]
    assert instances == []  # no series of an instance


def test_the_rows_of_a_tree_have_one_operation_id_and_no_orphan_parents(office: Office):
    tables = {name: rows for name, rows in office.tables.items() if name != "customMetrics"}
    trees: dict[str, set[str]] = {}
    for rows in tables.values():
        for row in rows:
            root = instance_of(row).removesuffix("-payment")
            if root.startswith("claim-"):
                trees.setdefault(root, set()).add(row["operation_Id"])
    assert set(trees) == set(office.statuses)
    assert {len(ids) for ids in trees.values()} == {1}
    assert len(set.union(*trees.values())) == CLAIMS
    spans = [*tables["requests"], *tables["dependencies"]]
    known = {row["id"] for row in spans}
    assert len(known) == len(spans)
    for name, rows in tables.items():
        for row in rows:
            of_no_tree = dimension(row, "prop__instanceId").startswith("@")  # an entity serves many
            assert row["operation_ParentId"] in {None, *known} or of_no_tree, (name, row)


def test_rows_name_the_application_and_the_worker(office: Office):
    for name, rows in office.tables.items():
        ours = [row for row in rows if row.get("name") not in OF_THE_EXPORTER]
        assert {row["cloud_RoleName"] for row in ours} <= {"office"}, name
    assert (
        len({row["cloud_RoleInstance"] for row in office.tables["requests"]}) == 2
    )  # before and after the restart


def test_the_name_of_the_root_is_its_orchestration(office: Office):
    for row in office.tables["requests"]:
        assert row["operation_Name"] == row["name"]
    for row in office.tables["customEvents"]:
        assert row["operation_Name"] == f"orchestration:{dimension(row, 'orchestrator')}"


# ------------------------------------------------------------------------------- queries and the workbook

QUERIES = {
    path.name: kusto.read(path.read_text()) for path in (ROOT / "deploy/application-insights").glob("*.kql")
}
EVERYWHERE = {"itemType"}
"""Columns that the service adds."""


def test_there_are_five_queries():
    assert set(QUERIES) == {
        "lifetimes.kql",
        "failures.kql",
        "replays.kql",
        "where-the-time-goes.kql",
        "one-instance.kql",
    }


@pytest.mark.parametrize("name", QUERIES)
def test_each_query_reads_what_has_arrived(name: str, office: Office):
    query = QUERIES[name]
    rows = [row for table in query.tables for row in office.tables[table]]
    assert query.tables
    assert query.names <= {row.get("name") for row in rows}
    assert query.fields <= {(kind, field) for row in rows for kind in DYNAMIC for field in row[kind]}
    assert query.columns <= {column for row in rows for column in row} | EVERYWHERE


def test_the_workbook_is_what_its_script_writes():
    script = runpy.run_path(str(ROOT / "deploy/application-insights/workbook.py"))
    found = script["FILE"].read_text()
    assert found == script["written"](), "run `make workbook`"
    document = json.loads(found)
    assert document["version"] == "Notebook/1.0"
    assert len({item["name"] for item in document["items"]}) == len(document["items"])
    queries = [item["content"] for item in document["items"] if item["type"] == 3]
    assert len(queries) == len(QUERIES)
    for query in queries:
        assert "ago(" not in query["query"] and "claim-7" not in query["query"]


# -------------------------------------------------------------------------------------------------- secrets


def test_no_payload_is_anywhere(office: Office):
    for body in office.arrived.bodies:
        assert MARKER.encode() not in body
    assert MARKER not in office.said


def test_the_connection_string_is_in_no_output_and_on_no_page(office: Office):
    for shown in (office.said, office.pages):
        assert KEY not in shown
        assert "IngestionEndpoint" not in shown


# --------------------------------------------------------------------------- Azure's tracking events and queries


def test_the_replay_after_the_restart_is_one_tracking_event(office: Office):
    [row] = [row for row in office.tables["traces"] if dimension(row, "prop__state") == "Replayed"]
    assert (instance_of(row), dimension(row, "prop__reason"), dimension(row, "prop__replays")) == (
        "claim-20",
        "restart",
        "1",
    )


def test_azures_query_of_a_single_instance_gives_its_steps_in_order(office: Office):
    """`Single instance query` of Azure's documentation, over the rows that arrived."""
    rows = [
        {
            "timestamp": row["timestamp"],
            "functionName": dimension(row, "prop__functionName"),
            "instanceId": dimension(row, "prop__instanceId"),
            "state": dimension(row, "prop__state"),
            "isReplay": {"true": True, "false": False}.get(dimension(row, "prop__isReplay").lower()),
            "sequenceNumber": int(dimension(row, "prop__sequenceNumber")),
            "appName": row["cloud_RoleName"],
        }
        for row in office.tables["traces"]
        if dimension(row, "Category") == "Host.Triggers.DurableTask"
    ]
    rows = [row for row in rows if row["isReplay"] is not True and row["instanceId"] == "claim-7"]
    rows.sort(key=lambda row: (row["timestamp"], row["sequenceNumber"]))
    assert {row["appName"] for row in rows} == {"office"}
    assert [(row["functionName"], row["state"]) for row in rows] == [
        ("claim", "Scheduled"),
        ("claim", "Started"),
        ("assess", "Scheduled"),
        ("claim", "Awaited"),
        ("assess", "Started"),
        ("assess", "Failed"),
        ("claim", "Awaited"),
        ("claim", "TimerExpired"),
        ("assess", "Scheduled"),
        ("claim", "Awaited"),
        ("assess", "Started"),
        ("assess", "Failed"),
        ("claim", "Failed"),
    ]


def test_azures_summary_of_instances_gives_the_last_state_of_each(office: Office):
    """`Instance summary query` of Azure's documentation: the latest row of each instance."""
    latest: dict[str, Row] = {}
    for row in office.tables["traces"]:
        is_tracking = dimension(row, "Category") == "Host.Triggers.DurableTask"
        if not is_tracking or dimension(row, "prop__isReplay").lower() == "true":
            continue
        instance_id = dimension(row, "prop__instanceId")
        if instance_id not in latest or row["timestamp"] >= latest[instance_id]["timestamp"]:
            latest[instance_id] = row
    claims = {key: row for key, row in latest.items() if key in office.statuses}
    assert set(claims) == set(office.statuses)
    for instance_id, row in claims.items():
        assert dimension(row, "prop__state") == office.statuses[instance_id].runtime_status.name
        assert dimension(row, "prop__functionName") == "claim"
        if dimension(row, "prop__state") == "Completed":
            assert dimension(row, "prop__output") == f"(Redacted {len(MARKER) + 2} characters)"
