"""Durations for OpenTelemetry: recorded by a thread, every one of up to 2,000 a second."""

import json
import subprocess
import sys

from perdure.telemetry.durations import A_SECOND, Sampler

PROGRAM = """
import asyncio, json
import perdure as df
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
app = df.App("measured")

@app.activity
async def estimate(amount: int) -> int:
    return amount

@app.activity
def pay(amount: int) -> int:
    raise ValueError("no account")

@app.orchestrator
async def settle(context: df.OrchestrationContext, amount: int) -> int:
    await context.create_timer(context.current_utc_datetime)
    try:
        return await context.call_activity(pay, await context.call_activity(estimate, amount))
    except df.TaskFailedError:
        return 0

async def main():
    async with app.running(store="memory:") as client:
        for amount in range(3):
            await client.wait_for_completion(await client.start_new(settle, None, amount))

asyncio.run(main())
found = {}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            for point in metric.data.data_points:
                if hasattr(point, "bucket_counts"):
                    labels = ",".join(str(value) for _, value in sorted(point.attributes.items()))
                    found[f"{metric.name} {labels}".strip()] = [point.count, len(point.explicit_bounds), metric.unit]
print(json.dumps(found))
"""


def test_every_histogram_has_each_duration_with_its_labels_unit_and_buckets() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

    found = json.loads(done.stdout)
    batches = found.pop("perdure.commit.batch")
    commits = found.pop("perdure.commit.duration memory")
    assert batches[0] == commits[0] >= 6
    assert found == {
        "perdure.instance.duration settle,Completed": [3, 20, "s"],
        "perdure.activity.duration estimate,completed": [3, 12, "s"],
        "perdure.activity.duration pay,failed": [3, 12, "s"],
        "perdure.activity.wait estimate,event loop": [3, 12, "s"],
        "perdure.activity.wait pay,thread": [3, 12, "s"],
        "perdure.timer.lateness": [3, 20, "s"],
    }


def sampled(per_second: int, seconds: int) -> list[int]:
    """How many were taken in each second."""
    now, taken = [0.0], [0] * seconds
    sampler = Sampler(lambda: now[0])
    for number in range(per_second * seconds):
        now[0] = number / per_second
        taken[int(now[0])] += sampler.takes()
    return taken


def test_up_to_two_thousand_a_second_all_are_taken() -> None:
    assert sampled(A_SECOND // 2, 3) == [A_SECOND // 2] * 3


def test_of_more_every_nth_is_taken_also_within_a_burst() -> None:
    taken = sampled(40 * A_SECOND, 4)

    assert taken[0] <= 14 * A_SECOND  # the burst is noticed in its first second
    assert all(A_SECOND / 2 <= count <= 2 * A_SECOND for count in taken[1:])


def test_after_a_burst_all_are_taken_again() -> None:
    now = [0.0]
    sampler = Sampler(lambda: now[0])
    for number in range(20 * A_SECOND):
        now[0] = number / (20 * A_SECOND)
        sampler.takes()
    late = []
    for number in range(300):
        now[0] = 2.0 + number / 100
        late.append(sampler.takes())
    assert all(late[-100:])
