"""`/metrics` over HTTP: who may read it, in which formats, and what it says if it cannot."""

import subprocess
import sys
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from starlette.testclient import TestClient

import perdure as df
from perdure.model.instances import execution_id_of
from perdure.model.span_ids import trace_id_of
from perdure.telemetry.metrics import METRICS
from perdure.telemetry.prometheus import name_of

LOCAL = "http://localhost:7071"
ADMIN = "the-administrators-own-long-key"
OPEN_METRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


def greeter() -> df.App:
    app = df.App("greeter")

    @app.activity
    async def greet(name: str) -> str:
        return f"Hello {name}"

    @app.orchestrator
    async def hello(context: df.OrchestrationContext) -> str:
        return await context.call_activity(greet, "Ada")

    return app


def served(**settings: Any) -> TestClient:
    return TestClient(greeter().asgi(store="memory:", **settings), base_url=LOCAL)


def run_one(http: TestClient) -> df.OrchestrationStatus:
    async def run() -> df.OrchestrationStatus:
        client = http.app.client  # type: ignore[attr-defined]
        status: df.OrchestrationStatus = await client.wait_for_completion(await client.start_new("hello"))
        return status

    assert http.portal is not None
    return http.portal.call(run)


def test_both_formats_have_every_metric_by_its_name_kind_and_unit() -> None:
    with served() as http:
        run_one(http)
        plain, new = http.get("/metrics"), http.get("/metrics", headers=OPEN_METRICS)

    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert new.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in open_metrics(new.text)}
    for metric in METRICS:
        family = families[name_of(metric)]
        assert (family.type, family.documentation) == (metric.kind, metric.says)
    old = {family.name for family in prometheus(plain.text)}
    assert old >= {name_of(metric) for metric in METRICS}


def test_the_slowest_in_a_bucket_is_named_by_its_trace() -> None:
    with served() as http:
        status = run_one(http)
        families = open_metrics(http.get("/metrics", headers=OPEN_METRICS).text)
        lifetimes = next(one for one in families if one.name == "perdure_instance_duration_seconds")
        plain = http.get("/metrics").text
        stored = http.app.client.gateway.store.get(status.instance_id)  # type: ignore[attr-defined]

    named = [sample.exemplar for sample in lifetimes.samples if sample.exemplar is not None]
    (only,) = named
    execution_id = execution_id_of(stored.row.salt, stored.row.execution_no)
    assert only.labels == {"trace_id": f"{trace_id_of(status.instance_id, execution_id):032x}"}
    assert "trace_id" not in plain


def test_without_keys_this_machine_reads_it_openly_and_others_do_not() -> None:
    with served() as http:
        assert http.get("/metrics").status_code == 200
        assert http.get("/metrics", headers={"x-functions-key": "wrong"}).status_code == 401
        assert http.get("/runtime/webhooks/durabletask/instances").status_code == 401
    stranger = TestClient(
        greeter().asgi(store="memory:"), base_url=LOCAL, client=("203.0.113.7", 4711), follow_redirects=False
    )
    with stranger as http:
        assert http.get("/metrics").status_code == 403


def test_with_keys_it_needs_the_scope_metrics_which_opens_nothing_else() -> None:
    with served(admin_key=ADMIN) as http:
        made = http.post(
            "/runtime/webhooks/durabletask/keys",
            json={"name": "prometheus", "scopes": ["metrics"]},
            headers={"x-functions-key": ADMIN},
        )
        key = {"Authorization": f"Bearer {made.json()['secret']}"}

        assert http.get("/metrics").status_code == 401
        assert http.get("/metrics", headers=key).status_code == 200
        assert http.get("/runtime/webhooks/durabletask/instances", headers=key).status_code == 403
        assert http.get("/metrics", headers={**key, "host": "elsewhere.example"}).status_code in (403, 421)
        denied = http.get("/metrics", headers=key).text
        audit = http.get("/runtime/webhooks/durabletask/audit", headers={"x-functions-key": ADMIN}).json()

    assert 'perdure_http_denied_total{reason="unauthenticated"' in denied
    assert 'perdure_http_denied_total{reason="foreign-host"' in denied
    assert 'perdure_http_denied_total{reason="forbidden"' in denied
    assert [one for one in audit["records"] if one["operation"] == "metrics" and one["outcome"] == "ok"] == []


def test_an_open_server_serves_it_to_everyone() -> None:
    with TestClient(
        greeter().asgi(store="memory:", access="open"), base_url=LOCAL, client=("203.0.113.7", 4711)
    ) as http:
        assert http.get("/metrics").status_code == 200


def test_with_telemetry_off_it_says_so() -> None:
    with served(telemetry="off") as http:
        answer = http.get("/metrics")

    assert answer.status_code == 404
    assert "the setting telemetry is off" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("mode", "missing", "status"),
    [("auto", ["prometheus_client", "opentelemetry"], 404), ("on", ["prometheus_client"], 501)],
)
def test_without_the_extra_it_names_the_command_and_everything_else_works(
    mode: str, missing: list[str], status: int
) -> None:
    program = f"""
import importlib.util, sys
missing = {missing}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
real = importlib.util.find_spec
def find(name, package=None):
    return None if name.partition(".")[0] in missing else real(name, package)
importlib.util.find_spec = find
sys.meta_path.insert(0, Missing())
import perdure as df
from starlette.testclient import TestClient
app = df.App("bare")
@app.orchestrator
async def hello(context: df.OrchestrationContext) -> str:
    return "hi"
with TestClient(app.asgi(store="memory:", telemetry="{mode}"), base_url="http://localhost:7071") as http:
    async def run():
        client = http.app.client
        return await client.wait_for_completion(await client.start_new("hello"))
    assert http.portal.call(run).output == "hi"
    answer = http.get("/metrics")
    print(answer.status_code, answer.json()["detail"])
assert not [one for one in sys.modules if one.partition(".")[0] in missing]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{status} ")
    assert "pip install 'perdure[telemetry]'" in done.stdout


def test_importing_perdure_and_running_an_engine_imports_neither_package() -> None:
    program = """
import asyncio, sys
import perdure as df
app = df.App("bare")
@app.orchestrator
async def hello(context: df.OrchestrationContext) -> str:
    return "hi"
async def main():
    async with app.running(store="memory:") as client:
        return (await client.wait_for_completion(await client.start_new("hello"))).output
assert asyncio.run(main()) == "hi"
print([one for one in sys.modules if one.partition(".")[0] in ("prometheus_client", "opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)

    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
