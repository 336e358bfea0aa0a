"""Each story of the claims office comes true: in virtual time, with the stand-ins of the services."""

import pytest

from examples.claims.process import app
from examples.claims.scenarios import SCENARIOS
from tests.examples.claims_world import VirtualWorld


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMS_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
async def world(perdure_environment, home):
    env = await perdure_environment(app, store=f"sqlite:///{home / 'hub.db'}")
    played = VirtualWorld(env, home)
    yield played
    played.close()


@pytest.mark.parametrize("story", SCENARIOS, ids=lambda story: story.name)
async def test_a_story_comes_true(world, story):
    assert await story.play(world, f"claim-{story.name}")
