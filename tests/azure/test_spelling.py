"""Azure's spellings beside ours: options, decorators, what clients see."""

import json
from datetime import timedelta

import pytest

import perdure as df
from perdure.errors import RegistrationError
from perdure.testing import environment
from tests.azure import official
from tests.core.styles import both


def test_retry_options_are_a_retry_policy_in_milliseconds():
    options = df.RetryOptions(5000, 3)
    ours = official.package().RetryOptions(5000, 3)

    assert isinstance(options, df.RetryPolicy)
    assert options.first_interval == timedelta(seconds=5)
    assert options.first_retry_interval_in_milliseconds == ours.first_retry_interval_in_milliseconds
    assert options.max_number_of_attempts == ours.max_number_of_attempts
    assert options.to_json() == ours.to_json()


def test_retry_options_know_what_azures_host_knows():
    options = df.RetryOptions(
        first_retry_interval_in_milliseconds=100,
        max_number_of_attempts=5,
        backoff_coefficient=2.0,
        max_retry_interval_in_milliseconds=1000,
        retry_timeout_in_milliseconds=60_000,
    )

    assert (options.backoff, options.max_interval, options.max_elapsed) == (
        2.0,
        timedelta(seconds=1),
        timedelta(minutes=1),
    )
    assert options.to_json() == {
        "firstRetryIntervalInMilliseconds": 100,
        "maxNumberOfAttempts": 5,
        "backoffCoefficient": 2.0,
        "maxRetryIntervalInMilliseconds": 1000,
        "retryTimeoutInMilliseconds": 60_000,
    }


def test_retry_options_can_be_narrowed_as_call_http_does():
    narrowed = df.RetryOptions(5000, 3).also_final("HttpDenied", ValueError)

    assert narrowed == df.RetryPolicy(timedelta(seconds=5), 3, non_retryable=("HttpDenied", ValueError))


@pytest.mark.parametrize("arguments", [(0, 3), (-1, 3), (1000, 0)])
def test_retry_options_refuse_what_means_nothing(arguments):
    with pytest.raises(ValueError):
        df.RetryOptions(*arguments)


def retrying_yield(context: df.DurableOrchestrationContext):
    options = df.RetryOptions(first_retry_interval_in_milliseconds=30_000, max_number_of_attempts=3)
    began = context.current_utc_datetime
    first = yield context.call_activity_with_retry("flaky", options, "a")
    second = yield context.call_activity_with_retry(name="flaky", retry_options=options, input_="b")
    third = yield context.call_sub_orchestrator_with_retry("child", options, "c", "the-child")
    return [first, second, third, (context.current_utc_datetime - began).total_seconds()]


async def retrying_async(context: df.DurableOrchestrationContext):
    options = df.RetryOptions(first_retry_interval_in_milliseconds=30_000, max_number_of_attempts=3)
    began = context.current_utc_datetime
    first = await context.call_activity_with_retry("flaky", options, "a")
    second = await context.call_activity_with_retry(name="flaky", retry_options=options, input_="b")
    third = await context.call_sub_orchestrator_with_retry("child", options, "c", "the-child")
    return [first, second, third, (context.current_utc_datetime - began).total_seconds()]


@both(retrying_yield, retrying_async)
async def test_retry_options_go_where_a_policy_goes(orchestrator):
    app = df.App("retrying")
    tries: list[str] = []

    @app.activity_trigger(input_name="text")
    def flaky(text: str) -> str:
        tries.append(text)
        if tries.count(text) < 3:
            raise ConnectionError("not yet")
        return text.upper()

    @app.orchestration_trigger(context_name="context")
    def child(context: df.DurableOrchestrationContext):
        return (yield context.call_activity("flaky", context.get_input()))

    app.orchestrator(name="main")(orchestrator)
    async with environment(app) as env:
        status = await env.run("main")
        named = await env.client.get_status("the-child")

    assert status.output == ["A", "B", "C", 180.0]
    assert named is not None


def test_a_decorator_gives_the_function_back():
    app = df.App("decorated")

    def body(context):
        return 1

    assert app.orchestration_trigger(context_name="context", orchestration="Main")(body) is body
    assert app.registry.orchestrators["Main"].function is body


def test_a_trigger_that_names_another_parameter_is_refused():
    blueprint = df.Blueprint()

    with pytest.raises(RegistrationError, match="context_name is 'ctx', but the function's first parameter"):

        @blueprint.orchestration_trigger(context_name="ctx")
        def main(context):
            return 1

    with pytest.raises(
        RegistrationError, match="input_name is 'city', but the function's parameters are name"
    ):

        @blueprint.activity_trigger(input_name="city")
        def hello(name):
            return name

    with pytest.raises(
        RegistrationError, match="client_name is 'client', but the function's parameters are req"
    ):

        @blueprint.durable_client_input(client_name="client")
        async def start(req):
            return None

    with pytest.raises(RegistrationError, match="belongs to the application's own hub"):
        blueprint.durable_client_input("client", "OtherHub")


async def test_annotations_are_resolved_where_the_trigger_stands():
    app = df.App("local")

    class Order(dict):  # local on purpose
        pass

    @app.activity_trigger(input_name="order")
    def count(order: "dict[str, Order]") -> int:
        return len(order)

    app.registry.check()


@pytest.mark.parametrize("declared", [dict, None])
async def test_input_type_is_what_get_input_gives(declared):
    app = df.App("typed-input")

    @app.orchestration_trigger(context_name="context", input_type=timedelta if declared is None else dict)
    def main(context: df.DurableOrchestrationContext):
        return type(context.get_input()).__name__
        yield

    async with environment(app) as env:
        given = timedelta(1) if declared is None else {"a": 1}
        assert (await env.run("main", given)).output == type(given).__name__


async def test_a_status_has_both_names_and_writes_itself_as_azure_does():
    app = df.App("statuses")

    @app.orchestration_trigger(context_name="context")
    def main(context: df.DurableOrchestrationContext):
        context.set_custom_status({"step": 1})
        return context.get_input()
        yield

    async with environment(app) as env:
        await env.run(main, {"a": 1}, "one")
        status = await env.client.get_status("one", show_input=True)

    assert status.input_ == status.input == {"a": 1}
    theirs = official.module("models.DurableOrchestrationStatus").DurableOrchestrationStatus
    read_back = theirs.from_json(json.loads(json.dumps(status.to_json())))
    assert read_back.to_json() == status.to_json()
    assert read_back.runtime_status.name == status.runtime_status.name
    assert read_back.created_time == status.created_time


async def test_lists_are_complete_and_purges_say_how_many():
    app = df.App("lists")

    @app.orchestration_trigger(context_name="context")
    def main(context: df.DurableOrchestrationContext):
        if context.get_input():
            yield context.create_timer(context.current_utc_datetime + timedelta(days=1))

    async with environment(app) as env:
        client = env.client
        for n in range(7):
            await client.start_new("main", f"{'ab'[n % 2]}-{n}", n == 6)
        await env.settled()

        everyone = await client.get_status_all()
        assert sorted(s.instance_id for s in everyone) == ["a-0", "a-2", "a-4", "a-6", "b-1", "b-3", "b-5"]
        some = await client.get_status_by(runtime_status=[df.OrchestrationRuntimeStatus.Completed])
        assert len(some) == 6
        prefixed = await client.get_status_by(env.now - timedelta(1), env.now + timedelta(1), None, "b-")
        assert [s.instance_id for s in prefixed] == ["b-5", "b-3", "b-1"]

        one = await client.purge_instance_history("b-1")
        none = await client.purge_instance_history("b-1")
        rest = await client.purge_instance_history_by(env.now - timedelta(1), None, None)
        assert [one.instances_deleted, none.instances_deleted, rest.instances_deleted] == [1, 0, 5]
        assert [one, none, rest] == [1, 0, 5]


async def test_more_than_a_page_is_listed(monkeypatch):
    monkeypatch.setattr("perdure.engine.client.paging.PAGE", 2)
    app = df.App("pages")
    app.orchestrator(name="main")(lambda context: None)
    async with environment(app) as env:
        for n in range(5):
            await env.client.start_new("main", f"i-{n}")
        assert [s.instance_id for s in await env.client.get_status_all()] == [
            f"i-{n}" for n in (4, 3, 2, 1, 0)
        ]


def test_a_task_says_its_state_as_azure_does():
    theirs = official.module("models.Task").TaskState

    assert {s.name: s.value for s in theirs} == {s.name: s.value for s in df.TaskState}


@pytest.mark.parametrize(
    ("name", "advice"),
    [("Orchestrator", "@app.orchestrator"), ("Entity", "@app.entity")],
)
def test_a_name_that_is_otherwise_here_says_how(name, advice):
    with pytest.raises(AttributeError, match=advice):
        getattr(df, name)
    with pytest.raises(AttributeError, match="has no attribute 'Enttiy'$"):
        df.Enttiy  # noqa: B018


async def test_a_program_in_azures_words_changes_nothing_but_its_import():
    func = official.functions()
    app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)

    @app.function_name("Begin")
    @app.route(route="start/{name}", methods=["POST"])
    @app.durable_client_input(client_name="client")
    async def begin(req: func.HttpRequest, client):
        instance_id = await client.start_new(req.route_params["name"], "one", req.get_json())
        return client.create_check_status_response(req, instance_id)

    @app.route(auth_level="FUNCTION")
    def closed(req):
        return "in"

    @app.function_name("Chain")
    @app.orchestration_trigger(context_name="context")
    def chain(context):
        named = yield context.call_activity("Greet", context.get_input())
        own = yield context.call_activity("greet", "x")
        return [named, own, vars(context.function_context)]

    @app.function_name("Greet")
    @app.activity_trigger(input_name="name")
    def greet(name: str) -> str:
        return f"Hello {name}"

    @app.function_name("Counted")
    @app.entity_trigger(context_name="context")
    def counter(context):
        context.set_state(context.get_input())

    routes = {one.name: (one.path, one.methods, one.auth) for one in app.registry.routes}
    assert routes == {
        "Begin": ("/start/{name}", ("POST",), "anonymous"),
        "closed": ("/closed", ("GET", "POST"), "function"),
    }
    async with environment(app) as env:
        for name in ("Chain", "chain"):
            assert (await env.run(name, "Ada")).output == ["Hello Ada", "Hello x", {}]
        client: df.DurableFunctionsClient = env.client
        await client.signal_entity(df.EntityId("counted", "k"), "set", input=5)
        await env.settled()
        assert (await client.read_entity_state(df.EntityId("Counted", "k"))).state == 5


def test_a_name_that_is_taken_or_has_nothing_below_it_is_refused():
    app = df.DFApp()

    @app.activity_trigger(input_name="a")
    def one(a): ...

    with pytest.raises(RegistrationError, match="already"):

        @app.function_name("one")
        @app.activity_trigger(input_name="a")
        def two(a): ...

    with pytest.raises(RegistrationError, match="put function_name above"):
        app.function_name("three")(lambda a: a)


@pytest.mark.parametrize("options", [{"path": "/x", "route": "x"}, {"route": "x", "auth_level": "nobody"}])
def test_a_route_in_two_spellings_or_for_an_unknown_level_is_refused(options):
    with pytest.raises(RegistrationError, match="route"):
        df.DFApp().route(**options)
    with pytest.raises(RegistrationError, match="http_auth_level"):
        df.DFApp("nobody")


async def test_links_take_the_order_of_2x_too():
    host = df.DFApp().asgi(store="memory:", access="open")
    async with host.lifespan():
        request = official.functions().HttpRequest(method="GET", url="http://localhost/x", body=b"")
        links = host.client.create_http_management_payload
        assert links(request, "one") == links("one", request)
        assert links("one", request)["statusQueryGetUri"].startswith("http://localhost/")
