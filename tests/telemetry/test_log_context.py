"""`LogContext`: the durable code behind each log record, wherever that code runs."""

import asyncio
import io
import json
import logging
import logging.config
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import perdure as df
from perdure.testing import environment
from tests.cluster.shop import shop
from tests.core.styles import both
from tests.telemetry import elsewhere

FIELDS = ("hub", "instance_id", "execution_id", "orchestrator", "entity", "activity", "attempt")
ROOT = Path(__file__).parents[2]
OUTSIDE = {**dict.fromkeys(FIELDS, ""), "attempt": 0}


class Kept(logging.Handler):
    """Keeps the attributes of each record, as a formatter would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(df.LogContext())
        self.lines: dict[str, dict[str, object]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        found = {name: getattr(record, name) for name in FIELDS}
        self.lines[record.getMessage()] = found


@pytest.fixture
def kept():
    handler, logger = Kept(), logging.getLogger("claims")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    orchestrator = logging.getLogger("perdure.orchestrator")
    orchestrator.addHandler(handler)
    level = orchestrator.level
    orchestrator.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    orchestrator.removeHandler(handler)
    orchestrator.setLevel(level)


log = logging.getLogger("claims")


async def on_loop(number: int) -> int:
    log.info("on the loop")
    await asyncio.gather(asyncio.to_thread(log.info, "on a thread of the body"), in_task())
    log.info("after a wait")
    return number


async def in_task() -> None:
    await asyncio.sleep(0)
    log.info("in a task of the body")


def on_thread(number: int) -> int:
    log.info("on a thread")
    return number


def steps_yield(context: df.OrchestrationContext):
    context.logger.info("orchestrator")
    yield context.call_activity("on_loop", 1)
    yield context.call_activity("on_thread", 1)
    log.info("between")
    yield context.call_entity(df.EntityId("counter", "k"), "add", 1)
    return (yield context.call_entity(df.EntityId("mailer", "m"), "send", 1))


async def steps_async(context: df.OrchestrationContext):
    context.logger.info("orchestrator")
    await context.call_activity("on_loop", 1)
    await context.call_activity("on_thread", 1)
    log.info("between")
    await context.call_entity(df.EntityId("counter", "k"), "add", 1)
    return await context.call_entity(df.EntityId("mailer", "m"), "send", 1)


def counter(context: df.EntityContext) -> None:
    log.info("entity")
    context.set_result(1)


class mailer:
    def send(self, number: int) -> int:
        log.info("offloaded entity")
        return number


@both(steps_yield, steps_async)
async def test_every_record_of_durable_code_names_its_instance_and_its_function(orchestrator, kept):
    app = df.App("office")
    app.orchestrator(orchestrator, name="steps")
    app.activity(on_loop)
    app.activity(on_thread)
    app.entity(counter)
    app.entity(mailer, offload=True)
    async with environment(app) as env:
        execution = (await env.run("steps", instance_id="claim-1")).execution_id
    of_instance = {**OUTSIDE, "hub": "office", "instance_id": "claim-1", "execution_id": execution}
    of_instance["orchestrator"] = "steps"
    assert kept.lines["orchestrator"] == kept.lines["between"] == of_instance
    on_loop_ = {**of_instance, "activity": "on_loop", "attempt": 1}
    for line in ("on the loop", "in a task of the body", "on a thread of the body", "after a wait"):
        assert kept.lines[line] == on_loop_, line
    assert kept.lines["on a thread"] == {**on_loop_, "activity": "on_thread"}
    for line, entity, key in (("entity", "counter", "k"), ("offloaded entity", "mailer", "m")):
        found = kept.lines[line]
        assert found["execution_id"]
        assert found == {
            **OUTSIDE,
            "hub": "office",
            "instance_id": f"@{entity}@{key}",
            "execution_id": found["execution_id"],
            "entity": entity,
        }


async def test_the_attempts_of_a_call_are_told_apart(kept):
    app, tries = df.App("office"), []

    @app.activity
    def flaky() -> None:
        tries.append(1)
        log.info("try %d", len(tries))
        if len(tries) == 1:
            raise ConnectionError("refused")

    @app.orchestrator
    async def main(context: df.OrchestrationContext):
        await context.call_activity(flaky, retry=df.RetryPolicy(max_attempts=2))

    async with environment(app) as env:
        await env.run("main")
    assert [kept.lines[f"try {number}"]["attempt"] for number in (1, 2)] == [1, 2]


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("source", ["processes", "threads"])
async def test_executors_carry_it(source, timeout):
    executor = df.process_pool(workers=1) if source == "processes" else (lambda: ThreadPoolExecutor(1))
    app = df.App("office")
    app.activity(elsewhere.told, executor=executor, timeout=timeout)

    @app.orchestrator
    async def main(context: df.OrchestrationContext):
        return await context.call_activity(elsewhere.told)

    async with app.running(store="memory:") as client:
        status = await client.wait_for_completion(await client.start_new("main", "i-1"), 60)
    assert status.output == {
        "hub": "office",
        "instance_id": "i-1",
        "execution_id": status.execution_id,
        "orchestrator": "main",
        "entity": "",
        "activity": "told",
        "attempt": 1,
    }


async def test_a_worker_that_claims_an_activity_knows_its_orchestrator(kept):
    app = df.App("office")
    app.activity(on_thread, pool="far")

    @app.orchestrator
    async def main(context: df.OrchestrationContext):
        return await context.call_activity(on_thread, 1)

    async with shop(app, {}, {"pool": ["far"]}) as opened:
        await opened.shared_out()
        mine = opened[0].own_id()
        await opened[0].client.start_new("main", mine)
        await opened[0].client.wait_for_completion(mine, 30)
    found = kept.lines["on a thread"]
    assert (found["instance_id"], found["orchestrator"], found["activity"]) == (mine, "main", "on_thread")


def test_records_of_other_code_have_the_attributes_too_and_their_own_values_stay(kept):
    log.info("outside")
    log.info("with extra", extra={"instance_id": "mine"})
    assert kept.lines["outside"] == OUTSIDE
    assert kept.lines["with extra"] == {**OUTSIDE, "instance_id": "mine"}


async def test_code_that_starts_no_activity_leaves_nothing_behind(kept):
    """A driver of the event loop runs several activities one after the other."""
    app = df.App("office")
    app.activity(on_loop)

    @app.orchestrator
    async def main(context: df.OrchestrationContext):
        await context.task_all([context.call_activity("on_loop", n) for n in range(20)])

    async with environment(app) as env:
        await env.run("main")
        log.info("the test itself")
    assert kept.lines["the test itself"] == OUTSIDE


async def test_a_dict_config_with_a_formatter_writes_lines_of_json():
    stream = io.StringIO()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"durable": {"()": "perdure.LogContext"}},
            "formatters": {"json": {"()": f"{__name__}.Json"}},
            "handlers": {
                "lines": {
                    "class": "logging.StreamHandler",
                    "stream": stream,
                    "formatter": "json",
                    "filters": ["durable"],
                }
            },
            "loggers": {"claims.json": {"handlers": ["lines"], "level": "INFO", "propagate": False}},
        }
    )
    app = df.App("office")

    @app.orchestrator
    async def main(context: df.OrchestrationContext):
        logging.getLogger("claims.json").info("filed")

    async with environment(app) as env:
        status = await env.run("main", instance_id="i-1")
    assert json.loads(stream.getvalue()) == {
        "message": "filed",
        "hub": "office",
        "instance": "i-1",
        "execution": status.execution_id,
    }


class Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        found = {"message": record.getMessage(), "hub": record.hub, "instance": record.instance_id}
        return json.dumps({**found, "execution": record.execution_id})


def test_the_name_restricts_it_to_a_part_of_the_loggers():
    context = df.LogContext("claims")
    ours = logging.LogRecord("claims.intake", logging.INFO, "", 1, "filed", (), None)
    other = logging.LogRecord("other", logging.INFO, "", 1, "filed", (), None)
    assert context.filter(ours) and context.filter(other)
    assert hasattr(ours, "instance_id") and not hasattr(other, "instance_id")


def test_the_span_of_the_application_is_in_its_records():
    trace = pytest.importorskip("opentelemetry.trace")
    context = trace.SpanContext(0xA1, 0xB2, is_remote=False, trace_flags=trace.TraceFlags(1))
    record = logging.LogRecord("claims", logging.INFO, "", 1, "filed", (), None)
    with trace.use_span(trace.NonRecordingSpan(context)):
        df.LogContext().filter(record)
    assert (record.trace_id, record.span_id) == (f"{0xA1:032x}", f"{0xB2:016x}")


def test_the_page_on_logs_names_every_logger():
    page = (ROOT / "docs" / "how-to" / "logs.md").read_text()
    named = set(re.findall(r"^\| `(perdure[\w.]*)` \|", page, re.MULTILINE))
    sources = [path.read_text() for path in (ROOT / "src" / "perdure").rglob("*.py")]
    found = {name for text in sources for name in re.findall(r'getLogger\("(perdure[\w.]*)"\)', text)}
    assert named == found - {"perdure"}
