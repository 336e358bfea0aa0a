"""Blueprints: parts of an application in modules of their own."""

from __future__ import annotations

import pytest

import perdure as df
from perdure.engine.functions.registry import name_of
from perdure.errors import RegistrationError
from perdure.testing import environment


def billing(**options: str) -> df.Blueprint:
    blueprint = df.Blueprint(**options)

    @blueprint.activity
    async def charge(amount: int) -> int:
        return amount * 2

    @blueprint.orchestrator
    async def settle(context: df.OrchestrationContext, amount: int) -> int:
        return await context.call_activity(charge, amount)

    @blueprint.orchestrator(name="settle-by-generator")
    def settle_by_generator(context: df.OrchestrationContext):
        return (yield context.call_activity(charge, context.get_input()))

    @blueprint.route("/charge", methods=["POST"], auth="anonymous")
    async def charged() -> str:
        return "charged"

    return blueprint


@pytest.mark.parametrize("name", ["settle", "settle-by-generator"])
async def test_the_functions_of_a_blueprint_run_in_the_application(name):
    app = df.App("shop")
    app.register_functions(billing())
    async with environment(app) as env:
        assert (await env.run(name, 21)).output == 42


def test_registering_is_spelt_both_ways_azure_spells_it():
    app = df.App("shop")
    app.register_blueprint(billing())
    assert set(app.registry.orchestrators) == {"settle", "settle-by-generator"}


async def test_a_prefix_names_functions_and_routes_and_references_follow():
    app = df.App("shop")
    blueprint = billing(prefix="billing-", path="/billing")
    app.register_functions(blueprint)
    settle = blueprint.registry.orchestrators["billing-settle"].function
    assert name_of(settle) == "billing-settle"
    assert [route.path for route in app.registry.routes] == ["/billing/charge"]
    async with environment(app) as env:
        assert (await env.run(settle, 4)).output == 8
        assert [call.activity for call in env.calls()] == ["billing-charge"]


def test_a_name_taken_twice_is_an_error_that_tells_both_places_and_changes_nothing():
    app = df.App("shop")

    @app.activity
    def charge() -> None: ...

    with pytest.raises(RegistrationError) as caught:
        app.register_functions(billing())
    assert str(caught.value).count(f"{__file__}:") == 2
    assert set(app.registry.activities) == {"charge"}
    assert not app.registry.orchestrators
    assert not app.registry.routes


def test_a_route_taken_twice_is_an_error_that_tells_both_places():
    app = df.App("shop")

    @app.route("/charge", methods=["PUT", "POST"])
    async def mine() -> str:
        return "mine"

    with pytest.raises(RegistrationError, match="POST /charge is already taken") as caught:
        app.register_functions(billing())
    assert str(caught.value).count(f"{__file__}:") == 2

    @app.route("/charge", methods=["GET"])
    async def read() -> str:
        return "another method is another route"


def test_the_same_blueprint_twice_in_one_application_is_an_error():
    app, blueprint = df.App("shop"), billing()
    app.register_functions(blueprint)
    with pytest.raises(RegistrationError, match="already registered in the application 'shop'"):
        app.register_functions(blueprint)


async def test_two_applications_may_share_a_blueprint():
    shop, market, blueprint = df.App("shop"), df.App("market"), billing()
    shop.register_functions(blueprint)
    market.register_functions(blueprint)
    async with environment(shop) as here, environment(market) as there:
        assert (await here.run("settle", 1)).output == (await there.run("settle", 1)).output == 2


def test_what_comes_after_registering_is_refused_since_no_application_would_have_it():
    app, blueprint = df.App("shop"), billing()
    app.register_functions(blueprint)
    with pytest.raises(RegistrationError, match="registered too late.*'shop'"):

        @blueprint.activity
        def late() -> None: ...


def test_an_application_is_no_blueprint():
    with pytest.raises(RegistrationError, match="cannot contain"):
        df.App("shop").register_functions(df.App("market"))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["billing", "/billing/", "/"])
def test_a_path_that_could_not_be_joined_is_refused(path):
    with pytest.raises(RegistrationError, match="must begin with a slash and must not end with one"):
        df.Blueprint(path=path)


async def test_a_lifespan_of_a_blueprint_is_entered_and_left():
    app, blueprint, seen = df.App("shop"), df.Blueprint(), []

    class Ledger:
        total = 7

    @blueprint.lifespan
    async def resources():
        seen.append("entered")
        yield Ledger()
        seen.append("left")

    @blueprint.activity
    async def read(ledger: Ledger) -> int:
        return ledger.total

    @blueprint.orchestrator
    async def reading(context: df.OrchestrationContext) -> int:
        return await context.call_activity(read)

    app.register_functions(blueprint)
    async with environment(app) as env:
        assert (await env.run(reading)).output == 7
    assert seen == ["entered", "left"]
