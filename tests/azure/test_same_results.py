"""The same source, run by the official package and by perdure, comes to the same result."""

from datetime import timedelta
from typing import Any

import pytest

import perdure as df
from perdure.testing import START, environment
from tests.azure import host, official
from tests.azure.programs import register

PROGRAMS: list[tuple[str, Any, list[tuple[float, str, Any]]]] = [
    ("chaining", None, []),
    ("backup", "/home", []),
    ("monitor", {"id": "j", "expires": 3600, "interval": 60}, []),
    ("monitor", {"id": "j", "expires": 90, "interval": 60}, []),
    ("verification", "+49 30 123", [(1, "SmsChallengeResponse", "1"), (2, "SmsChallengeResponse", "4711")]),
    ("verification", "+49 30 123", [(n, "SmsChallengeResponse", "1") for n in (1, 2, 3)]),
    ("verification", "+49 30 123", [(5, "SmsChallengeResponse", "1")]),
    ("verification", "+49 30 123", []),
    ("cleanup", None, []),
    ("provision", ["x", "yy"], []),
    ("transfer", None, []),
    ("counting", None, []),
    ("facts", {"a": 1}, [(1, "b", {"x": 1})]),
]


@pytest.mark.parametrize(("name", "input_", "events"), PROGRAMS)
async def test_both_come_to_the_same(name, input_, events):
    package = official.package()
    theirs, ours = package.DFApp(), df.App("azures")
    register(package, theirs)
    register(df, ours)

    async with environment(ours) as env:
        await env.client.start_new(name, "main", input_)
        for after, event, data in events:
            await env.advance(to=START + timedelta(seconds=after))
            await env.client.raise_event("main", event, data)
        output = (await env.client.wait_for_completion("main")).output

    assert output == host.run(theirs, START, name, input_, events)
    assert output is not None


def test_both_fail_the_same():
    package = official.package()
    theirs = package.DFApp()
    register(package, theirs)

    with pytest.raises(host.Failed, match=r"A phone number input is required\."):
        host.run(theirs, START, "verification", "")
