"""What the metrics count, by the pages that Prometheus reads."""

import asyncio
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families as prometheus

import perdure as df
from perdure.telemetry.metrics import EVENTS, HubGauges, metrics_of
from perdure.telemetry.prometheus import page
from perdure.testing import environment


def claims() -> df.App:
    """Three orchestrators, two activities and a wait."""
    app = df.App("claims")

    @app.activity
    async def estimate(amount: int) -> int:
        return amount

    @app.activity
    def pay(amount: int) -> str:
        if amount < 0:
            raise ValueError("no account")
        return "paid"

    @app.orchestrator
    async def settle(context: df.OrchestrationContext, amount: int) -> str:
        value = await context.call_activity(estimate, amount)
        policy = df.RetryPolicy(first_interval=1, max_attempts=3)
        return await context.call_activity(pay, value, retry=policy)

    @app.orchestrator
    async def decide(context: df.OrchestrationContext) -> str:
        return await context.wait_for_external_event("Decision")

    @app.orchestrator
    async def both(context: df.OrchestrationContext) -> str:
        return await context.call_sub_orchestrator(settle, 7)

    return app


def samples(env_or_text) -> dict[tuple[str, ...], float]:
    """The samples that are not 0, as name and label values, without the worker."""
    text = env_or_text if isinstance(env_or_text, str) else text_of(env_or_text)
    return {
        (one.name, *(value for label, value in sorted(one.labels.items()) if label != "worker")): one.value
        for family in prometheus(text)
        for one in family.samples
        if one.value
    }


def text_of(env, accept: str = "") -> str:
    metrics = metrics_of(env.engine.telemetry)
    return page([(metrics.worker, metrics.read())], accept).content.decode()


def of(env, name: str) -> dict[str, float]:
    return {", ".join(key[1:]): value for key, value in samples(env).items() if key[0] == name}


async def test_starts_and_ends_are_counted_by_orchestrator_origin_status_and_error():
    async with environment(claims()) as env:
        await env.run("settle", 5)
        await env.run("both")
        await env.run("settle", -1)
        stopped = await env.client.start_new("decide")
        await env.client.terminate(stopped, "enough")
        await env.client.wait_for_completion(stopped)

        assert of(env, "perdure_instance_started_total") == {
            "settle, client": 2,
            "settle, parent": 1,
            "both, client": 1,
            "decide, client": 1,
        }
        assert of(env, "perdure_instance_ended_total") == {
            ", settle, Completed": 2,
            ", both, Completed": 1,
            "ValueError, settle, Failed": 1,
            ", decide, Terminated": 1,
        }
        assert of(env, "perdure_instance_duration_seconds_count") == {
            "settle, Completed": 2,
            "both, Completed": 1,
            "settle, Failed": 1,
            "decide, Terminated": 1,
        }


async def test_attempts_and_retries_are_counted_by_activity_and_outcome():
    async with environment(claims()) as env:
        await env.run("settle", 5)
        await env.run("settle", -1)

        assert of(env, "perdure_activity_attempts_total") == {
            "estimate, completed": 2,
            "pay, completed": 1,
            "pay, failed": 3,
        }
        assert of(env, "perdure_activity_retries_total") == {"pay": 2}
        assert of(env, "perdure_activity_duration_seconds_count") == {
            "estimate, completed": 2,
            "pay, completed": 1,
            "pay, failed": 3,
        }
        assert of(env, "perdure_activity_wait_seconds_count") == {
            "estimate, event loop": 2,
            "pay, thread": 4,
        }


async def test_a_late_and_a_cancelled_attempt_have_their_own_outcomes():
    app = df.App("late")
    released = asyncio.Event()

    @app.activity(timeout=0.001)
    async def slow(_: None) -> None:
        await released.wait()

    @app.activity
    async def endless(_: None) -> None:
        await released.wait()

    @app.orchestrator
    async def main(context: df.OrchestrationContext) -> None:
        try:
            await context.call_activity(slow, None)
        except df.TaskFailedError:
            pass
        unwanted = context.call_activity(endless, None)
        await context.wait_for_external_event("Stop")
        unwanted.cancel()

    async with environment(app) as env:
        instance = await env.client.start_new("main")
        while not of(env, "perdure_activity_running").get("endless"):
            await asyncio.sleep(0)
        await env.client.raise_event(instance, "Stop")
        await env.client.wait_for_completion(instance)

        assert of(env, "perdure_activity_attempts_total") == {"slow, timed_out": 1, "endless, cancelled": 1}
        assert of(env, "perdure_activity_running") == {}
        released.set()


async def test_events_are_counted_when_they_are_accepted_and_again_when_nothing_took_them():
    async with environment(claims()) as env:
        instance = await env.client.start_new("decide")
        await env.client.raise_event(instance, "Comment", "x")
        await env.client.raise_event(instance, "Decision", "yes")
        await env.client.wait_for_completion(instance)
        with pytest.raises(df.InstanceFinished):
            await env.client.raise_event(instance, "Decision", "no")

        assert of(env, "perdure_event_raised_total") == {"decide": 2}
        assert of(env, "perdure_event_dropped_total") == {"decide, untaken": 1}


async def test_an_event_held_while_suspended_counts_once():
    async with environment(claims()) as env:
        instance = await env.client.start_new("decide")
        await env.client.suspend(instance)
        await env.client.raise_event(instance, "Decision", "yes")
        assert of(env, "perdure_event_raised_total") == {"decide": 1}
        await env.client.resume(instance)
        await env.client.wait_for_completion(instance)
        assert of(env, "perdure_event_raised_total") == {"decide": 1}


async def test_parked_instances_are_counted_by_reason():
    async with environment(claims(), store="memory:") as env:
        instance = await env.client.start_new("decide")
        await env.settled()
        await env.restart(df.App("claims"))
        await env.client.raise_event(instance, "Decision", "yes")
        await env.settled()

        assert of(env, "perdure_instance_parked_total") == {"_other, no_worker": 1}
        assert of(env, "perdure_parked_instances") == {"": 1}


async def test_replays_are_counted_by_reason_with_the_events_that_they_read():
    async with environment(claims(), store="memory:") as env:
        instance = await env.client.start_new("decide")
        await env.settled()
        await env.evict()
        await env.client.raise_event(instance, "Comment")
        await env.settled()

        assert of(env, "perdure_replays_total") == {"decide, evicted": 1}
        assert of(env, "perdure_replay_events_total") == {"decide": 2}
        assert of(env, "perdure_replay_duration_seconds_count") == {"decide": 1}
        assert of(env, "perdure_evictions_total") == {"": 1}

        await env.restart()
        await env.client.raise_event(instance, "Decision", "yes")
        await env.client.wait_for_completion(instance)
        assert of(env, "perdure_replays_total") == {"decide, restart": 1}


async def test_gauges_of_the_hub_are_the_instances_by_status_the_oldest_the_waits_and_the_size(tmp_path):
    async with environment(claims(), store=f"sqlite:///{tmp_path}/claims.db") as env:
        await env.client.start_new("decide")
        await env.advance(hours=2)
        await env.client.start_new("decide")
        stopped = await env.client.start_new("decide")
        await env.client.suspend(stopped)
        await env.run("settle", 3)

        assert of(env, "perdure_instances") == {"Running": 2, "Suspended": 1, "Completed": 1}
        assert of(env, "perdure_instance_oldest_seconds")["Running"] == pytest.approx(7_200, abs=60)
        assert of(env, "perdure_wait_open") == {"Decision": 3}
        assert of(env, "perdure_store_size_bytes")[""] > 4_096
        assert of(env, "perdure_warm_instances")[""] == 3


async def test_the_hub_is_asked_at_most_every_ten_seconds_and_less_often_if_it_is_slow():
    async with environment(claims()) as env:
        now, asked, took = [0.0], [], [0.0]
        store = env.engine.store

        class Slow:
            def gauges(self):
                asked.append(now[0])
                now[0] += took[0]
                return store.gauges()

            def __getattr__(self, name):
                return getattr(store, name)

        class Beside:
            store = Slow()
            registry = env.engine.registry
            now = env.engine.now

        gauges = HubGauges(Beside(), lambda: now[0])
        for second in range(35):
            now[0] = max(now[0], float(second))
            gauges.read()
        assert asked == [0.0, 10.0, 20.0, 30.0]

        took[0], now[0] = 2.0, 40.0
        gauges.read()
        now[0] = 141.0
        gauges.read()
        assert asked[4:] == [40.0]
        now[0] = 142.0
        gauges.read()
        assert asked[4:] == [40.0, 142.0]


async def test_made_up_names_of_events_have_no_series_of_their_own():
    app = df.App("made-up")

    @app.orchestrator(events={"Declared": None})
    async def declares(context: df.OrchestrationContext) -> object:
        return await context.wait_for_external_event("Declared")

    @app.orchestrator
    async def waits(context: df.OrchestrationContext) -> object:
        return await context.wait_for_external_event(f"Event-{context.instance_id}")

    async with environment(app) as env:
        for no in range(3 * EVENTS):
            await env.client.start_new("waits", f"id-{no}")
        await env.client.start_new("declares")
        await env.settled()
        found = of(env, "perdure_wait_open")

    assert len(found) == EVENTS + 2
    assert (found["_other"], found["Declared"]) == (2 * EVENTS, 1)


async def test_every_registered_function_has_its_series_from_the_start_and_built_in_ones_have_none():
    async with environment(claims()) as env:
        text = text_of(env)

    for name in ("settle", "decide", "both"):
        for origin in ("client", "parent", "schedule", "queue"):
            assert re.search(
                rf'^perdure_instance_started_total{{orchestrator="{name}",origin="{origin}",worker=".+"}} 0.0$',
                text,
                re.M,
            )
        assert f'perdure_instance_duration_seconds_count{{orchestrator="{name}",status="Failed"' in text
    for name in ("estimate", "pay"):
        for outcome in ("completed", "failed", "timed_out", "cancelled", "dropped"):
            assert f'perdure_activity_attempts_total{{activity="{name}",outcome="{outcome}"' in text
        assert f'perdure_activity_queued{{activity="{name}"' in text
    assert "BuiltIn" not in text


async def test_after_five_minutes_another_instance_may_be_the_slowest_of_its_bucket():
    app = claims()

    @app.orchestrator
    async def sleeps(context: df.OrchestrationContext, seconds: float) -> None:
        await context.create_timer(seconds)

    async with environment(app) as env:
        metrics = metrics_of(env.engine.telemetry)

        async def slowest_after(seconds: float) -> float:
            await env.run("sleeps", seconds)
            metrics.read()
            buckets = metrics.counting.lifetimes["sleeps", "Completed"]
            (found,) = [one.value for one in buckets.slowest.values()]
            return found

        assert await slowest_after(45) == pytest.approx(45, abs=1)
        assert await slowest_after(40) == pytest.approx(45, abs=1)
        await env.advance(minutes=6)
        metrics.read()
        assert await slowest_after(40) == pytest.approx(40, abs=1)


async def test_the_names_of_functions_are_known_where_none_run():
    async with environment(claims(), settings=df.Settings(accept_only=True)) as env:
        await env.client.start_new("settle", None, 1)
        assert of(env, "perdure_instance_started_total") == {"settle, client": 1}


async def test_ten_thousand_instances_of_three_orchestrators_are_fewer_than_a_thousand_series():
    app = claims()

    @app.orchestrator(name="decide", version="2")
    async def decide(context: df.OrchestrationContext) -> str:
        raise ValueError(context.instance_id)

    async with environment(app) as env:
        for begin in range(0, 10_000, 500):
            names = ("settle", "decide", "both")
            ids = await asyncio.gather(
                *(env.client.start_new(names[no % 3], f"id-{no}", 1) for no in range(begin, begin + 500))
            )
            await asyncio.gather(*(env.client.wait_for_completion(one) for one in ids))
        text = text_of(env)

    series = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert sum(of(text, "perdure_instance_ended_total").values()) >= 10_000
    assert len(series) < 1_000
    assert "id-" not in text


async def test_names_that_are_not_registered_here_are_other():
    async with environment(claims()) as env:
        await env.client.start_new("settle", None, 1)
        metrics = metrics_of(env.engine.telemetry)
        assert metrics.counting.activity("never heard of") == "_other"
        assert metrics.counting.orchestrator("never heard of") == "_other"


def test_error_types_are_bounded():
    from perdure.engine.functions.registry import Registry
    from perdure.telemetry.counting import ERROR_TYPES, Counting

    class Ended:
        def __init__(self, error: str) -> None:
            from perdure.failure import Failure
            from perdure.model.events import ExecutionFailed

            self.ending = ExecutionFailed(failure=Failure(error))

    counting = Counting(Registry(), "memory")
    found = {counting._error_of(Ended(f"made.up.Error{no}")) for no in range(3 * ERROR_TYPES)}
    assert len(found) == ERROR_TYPES + 1
    assert "_other" in found
