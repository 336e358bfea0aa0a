"""new_guid and new_uuid are Azure's algorithms: the same numbers, for programs that keep them elsewhere."""

from datetime import UTC, datetime

import pytest

import perdure as df
from perdure.testing import environment
from tests.azure import official
from tests.core.styles import both

# Computed once by azure-functions-durable 1.7.0: new_uuid, new_guid, new_uuid, new_guid of one context.
VECTORS = [
    (
        "abc",
        datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        [
            "c3360301-4ed4-5e39-9663-206152d5776b",
            "60a8c5b6-b7d9-575d-aa43-8bc2ed8f6742",
            "d8958010-c3b0-5479-bcce-103389d66a77",
            "8725215e-1bff-5d55-a3d4-1bc4fbb8cffa",
        ],
    ),
    (
        "order-17 é",
        datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC),
        [
            "b291d211-9960-515a-9dae-ab6e61b71056",
            "d4636c63-ca31-54f4-baa2-f4501e642b3d",
            "7d0c5183-b331-5f38-8695-3766180fd995",
            "32f0467a-472f-5f81-a9d8-dbd2d5728acb",
        ],
    ),
]


def four_ids_yield(context: df.DurableOrchestrationContext):
    return [context.new_uuid(), context.new_guid(), context.new_uuid(), context.new_guid()]
    yield


async def four_ids_async(context: df.DurableOrchestrationContext):
    return [context.new_uuid(), context.new_guid(), context.new_uuid(), context.new_guid()]


@both(four_ids_yield, four_ids_async)
@pytest.mark.parametrize(("instance_id", "now", "ids"), VECTORS)
async def test_ids_are_those_of_the_official_package(orchestrator, instance_id, now, ids):
    app = df.App("ids")
    app.orchestrator(name="main")(orchestrator)
    async with environment(app, start=now) as env:
        assert (await env.run("main", instance_id=instance_id)).output == ids


@pytest.mark.parametrize(("instance_id", "now", "ids"), VECTORS)
def test_the_vectors_are_what_the_installed_package_computes(instance_id, now, ids):
    context = official.context(instance_id, now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    computed = [context.new_uuid(), context.new_guid(), context.new_uuid(), context.new_guid()]

    assert [str(one) for one in computed] == ids
