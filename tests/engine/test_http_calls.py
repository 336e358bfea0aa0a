"""call_http on a virtual clock: what is sent, what is waited for, what survives. The network is a stub."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

import perdure as df
from perdure.errors import FunctionNotFound, RegistrationError
from perdure.model import payload
from perdure.model.http_calls import HTTP_ACTIVITY, HTTP_POLLING, HttpRequest, HttpResponse
from perdure.testing import DurableEnvironment, environment

START = datetime(2030, 1, 1, tzinfo=UTC)
PLACE = "https://jobs.example/start"


def make_app(call: Callable[[df.OrchestrationContext], Any]) -> df.App:
    """An application that makes the same call in both styles, and gives the response's status and content."""
    app = df.App("calls")

    @app.orchestrator
    async def awaiting(context: df.OrchestrationContext) -> Any:
        response = await call(context)
        return [response.status_code, response.content]

    @app.orchestrator
    def yielding(context: df.OrchestrationContext):
        response = yield call(context)
        return [response["statusCode"], response["content"]]

    return app


styles = pytest.mark.parametrize("style", ["awaiting", "yielding"])


class Network:
    """Answers in order, the last one again and again, and notes what was asked."""

    def __init__(self, *answers: HttpResponse | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[HttpRequest] = []
        self.keys: list[str] = []

    def __call__(self, request: HttpRequest, context: df.ActivityContext) -> HttpResponse:
        self.asked.append(request)
        self.keys.append(context.idempotency_key)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def running(app: df.App, network: Network, **options: Any):
    return environment(app, activities={HTTP_ACTIVITY: network}, start=START, **options)


def accepted(location: str = "/status/1", **headers: str) -> HttpResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(202, {"location": location, **named}, url=PLACE)


DONE = HttpResponse(200, {"content-type": "application/json"}, '{"ok":true}', PLACE)


@styles
async def test_a_call_is_one_activity_and_any_status_is_a_response(style):
    network = Network(HttpResponse(503, {}, "closed"))
    app = make_app(lambda context: context.call_http("post", PLACE, {"amount": 5}, {"X-Claim": "7"}))
    async with running(app, network) as env:
        status = await env.run(style)
        assert status.output == [503, "closed"]
        assert env.now == START
    [asked] = network.asked
    assert (asked.method, asked.uri, asked.content, asked.form) == ("POST", PLACE, {"amount": 5}, "json")
    assert asked.headers == {"X-Claim": "7", "Content-Type": "application/json"}


@styles
async def test_a_202_is_polled_at_its_location_at_the_pace_it_asks_for(style):
    network = Network(accepted(retry_after="60"), accepted(retry_after="120"), DONE)
    app = make_app(lambda context: context.call_http("POST", PLACE, {"amount": 5}))
    async with running(app, network) as env:
        started = await env.client.start_new(style)
        await env.advance(seconds=59)
        assert len(network.asked) == 1
        waiting = (await env.client.get_status(started)).waiting_for
        assert HTTP_POLLING in waiting
        await env.advance(seconds=1)
        assert len(network.asked) == 2
        await env.advance(seconds=119)
        assert len(network.asked) == 2
        await env.advance(seconds=1)
        status = await env.client.wait_for_completion(started)
        assert status.output == [200, '{"ok":true}']
    questions = network.asked[1:]
    assert {(q.method, q.uri, q.content) for q in questions} == {
        ("GET", "https://jobs.example/status/1", None)
    }
    assert not any(q.idempotent for q in questions)
    assert not any("Content-Type" in q.headers for q in questions)


async def test_retry_after_may_be_a_date_which_is_held_against_the_servers_own_clock():
    fast = START + timedelta(hours=3)  # the server's clock goes three hours fast
    date = format_datetime(fast, usegmt=True)
    until = format_datetime(fast + timedelta(seconds=90), usegmt=True)
    network = Network(accepted(retry_after=until, date=date), DONE)
    async with running(make_app(lambda context: context.call_http("GET", PLACE)), network) as env:
        await env.run("awaiting")
        assert env.now == START + timedelta(seconds=90)


async def test_without_retry_after_it_asks_every_half_minute_or_as_told():
    for told, expected in ((None, 30), (5, 5)):
        network = Network(accepted(), accepted(), DONE)
        more = {} if told is None else {"poll_interval": told}
        app = make_app(lambda context, more=more: context.call_http("GET", PLACE, **more))
        async with running(app, network) as env:
            await env.run("awaiting")
            assert env.now == START + timedelta(seconds=2 * expected)


async def test_a_server_that_asks_for_no_pause_is_given_one():
    network = Network(accepted(retry_after="0"), accepted(retry_after="0"), DONE)
    async with running(make_app(lambda context: context.call_http("GET", PLACE)), network) as env:
        await env.run("awaiting")
        assert env.now == START + timedelta(seconds=2)


@pytest.mark.parametrize("nonsense", ["soon", "-5", "1e9", "٣", "Mon, 99 Foo 2030", ""])
async def test_a_retry_after_that_says_nothing_leaves_the_interval(nonsense):
    network = Network(accepted(retry_after=nonsense), DONE)
    async with running(make_app(lambda context: context.call_http("GET", PLACE)), network) as env:
        await env.run("awaiting")
        assert env.now == START + timedelta(seconds=30)


async def test_a_busy_server_is_asked_again_and_another_error_is_the_outcome():
    busy = HttpResponse(503, {"retry-after": "10"}, url=PLACE)
    refused = HttpResponse(500, {"retry-after": "10"}, "broken", PLACE)
    network = Network(accepted(), busy, refused)
    async with running(make_app(lambda context: context.call_http("GET", PLACE)), network) as env:
        assert (await env.run("awaiting")).output == [500, "broken"]
        assert env.now == START + timedelta(seconds=40)


@pytest.mark.parametrize("name", ["poll", "asynchronous_pattern_enabled"])
async def test_polling_can_be_left_to_the_caller(name):
    network = Network(accepted())
    app = make_app(lambda context: context.call_http("GET", PLACE, **{name: False}))
    async with running(app, network) as env:
        assert (await env.run("awaiting")).output == [202, ""]


async def test_a_202_without_a_location_is_the_response():
    network = Network(HttpResponse(202, {}, "queued"))
    async with running(make_app(lambda context: context.call_http("GET", PLACE)), network) as env:
        assert (await env.run("awaiting")).output == [202, "queued"]


async def test_a_location_that_cannot_be_asked_fails_the_call_with_its_reason():
    network = Network(accepted("gopher://jobs.example/1"))
    async with running(make_app(lambda context: context.call_http("GET", PLACE)), network) as env:
        status = await env.run("awaiting")
        assert status.runtime_status == df.RuntimeStatus.Failed
        assert "gopher://jobs.example/1" in str(status.failure)


async def test_polling_ends_at_its_deadline():
    network = Network(accepted(retry_after="60"))
    app = make_app(lambda context: context.call_http("GET", PLACE, poll_timeout=timedelta(minutes=5)))
    async with running(app, network) as env:
        status = await env.run("awaiting")
        assert "TimeoutError" in str(status.failure)
        assert "poll_timeout" in str(status.failure)
        assert env.now == START + timedelta(minutes=5)


@styles
async def test_a_long_polling_survives_restarts_and_keeps_both_histories_short(style, tmp_path):
    network = Network(*[accepted(retry_after="60") for _ in range(250)], DONE)
    app = make_app(lambda context: context.call_http("POST", PLACE))
    async with running(app, network, store=f"sqlite:///{tmp_path}/calls.db") as env:
        started = await env.client.start_new(style)
        for _ in range(5):
            await env.advance(minutes=45)
            await env.restart()
        await env.advance(minutes=60)
        status = await env.client.get_status(started, show_history=True)
        assert status.output == [200, '{"ok":true}']
        assert len(network.asked) == 251
        assert len(status.history) < 10
        page = await env.client.query(name=HTTP_POLLING)
        [polling] = page.instances
        kept = await env.client.get_status(polling.instance_id, show_history=True)
        assert len(kept.history) < 600


async def test_what_was_secret_for_one_origin_goes_to_no_other():
    secret = df.Secret("TOKEN", form="Bearer {}")
    here, there = (
        accepted("/status/1", retry_after="1"),
        accepted("https://elsewhere.example/2", retry_after="1"),
    )
    network = Network(here, there, DONE)
    headers = {"Authorization": "Basic x", "X-Mine": secret, "X-Plain": "1", "X-Functions-Key": "k"}
    app = make_app(
        lambda context: context.call_http(
            "GET", PLACE, headers=headers, token_source=df.ManagedIdentityTokenSource("api://jobs")
        )
    )
    async with running(app, network) as env:
        await env.run("awaiting")
    first, same, other = network.asked
    assert same.headers == first.headers
    assert same.secrets == first.secrets != ()
    assert same.token_resource == "api://jobs"
    assert other.headers == {"X-Plain": "1"}
    assert other.secrets == ()
    assert other.token_resource == ""


@styles
async def test_a_failed_connection_is_tried_again_under_one_key(style):
    network = Network(df.HttpCallError("refused"), df.HttpCallError("refused"), DONE)
    app = make_app(lambda context: context.call_http("GET", PLACE, retry=df.RetryPolicy(10, max_attempts=3)))
    async with running(app, network) as env:
        assert (await env.run(style)).output[0] == 200
        assert env.now == START + timedelta(seconds=20)
    assert len(set(network.keys)) == 1


async def test_what_the_next_attempt_would_meet_again_is_not_tried_again():
    network = Network(df.HttpDenied("private"))
    app = make_app(lambda context: context.call_http("GET", PLACE, retry=df.RetryPolicy(10, max_attempts=3)))
    async with running(app, network) as env:
        assert "HttpDenied" in str((await env.run("awaiting")).failure)
        assert len(network.asked) == 1


async def test_a_question_about_a_202_that_fails_is_asked_again_without_being_told():
    network = Network(accepted(retry_after="1"), df.HttpCallError("reset"), DONE)
    async with running(make_app(lambda context: context.call_http("GET", PLACE)), network) as env:
        assert (await env.run("awaiting")).output[0] == 200


def cancelling(pause: timedelta) -> df.App:
    app = df.App("calls")

    @app.orchestrator
    async def awaiting(context: df.OrchestrationContext) -> str:
        call = context.call_http("GET", PLACE, retry=df.RetryPolicy(600, max_attempts=3))
        await context.create_timer(pause)
        call.cancel()
        try:
            await call
        except df.TaskCancelled:
            return "cancelled"
        return "answered"

    @app.orchestrator
    def yielding(context: df.OrchestrationContext):
        call = context.call_http("GET", PLACE, retry=df.RetryPolicy(600, max_attempts=3))
        yield context.create_timer(pause)
        call.cancel()
        try:
            yield call
        except df.TaskCancelled:
            return "cancelled"
        return "answered"

    return app


@styles
async def test_a_call_that_is_tried_again_can_be_given_up(style):
    network = Network(df.HttpCallError("refused"))
    async with running(cancelling(timedelta(minutes=5)), network) as env:
        assert (await env.run(style)).output == "cancelled"
        await env.advance(hours=1)
        assert len(network.asked) == 1


@styles
async def test_a_finished_call_cannot_be_given_up_any_more_and_an_accepted_one_says_what_to_do(style):
    async with running(cancelling(timedelta(minutes=5)), Network(DONE)) as env:
        assert (await env.run(style)).output == "answered"
    async with running(cancelling(timedelta(minutes=5)), Network(accepted(retry_after="3600"))) as env:
        assert "cannot be cancelled" in str((await env.run(style)).failure)


async def test_calls_run_beside_each_other():
    network = Network(HttpResponse(200, {}, "a"), HttpResponse(200, {}, "b"))
    app = df.App("calls")

    @app.orchestrator
    async def both(context: df.OrchestrationContext) -> int:
        return len(await context.task_all([context.call_http("GET", PLACE) for _ in range(2)]))

    async with running(app, network) as env:
        assert (await env.run(both)).output == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("GET", "file:///etc/passwd"), "http or https"),
        (("GET", "jobs.example/start"), "http or https"),
        (("GET", "https:///start"), "http or https"),
        (("GET", "https://me:secret@jobs.example/"), "user or password"),
        (("GET", "https://[::1"), "cannot be read"),
        (("GET /x", PLACE), "not an HTTP method"),
        (("GET", PLACE, None, {"X-A": "b\r\nX-C: d"}), "one line of text"),
        (("GET", PLACE, None, {"X A": "b"}), "not a valid header name"),
        (("GET", PLACE, None, {"Host": "other.example"}), "must not be given"),
        (("GET", PLACE, None, {"X-A": 5}), "one line of text"),
        (("GET", PLACE, {"a": 1}, None, None, True), "content that is text"),
    ],
)
async def test_a_request_that_could_not_be_sent_fails_where_it_is_written(arguments, told):
    network = Network(DONE)
    async with running(make_app(lambda context: context.call_http(*arguments)), network) as env:
        assert told in str((await env.run("awaiting")).failure)
    assert not network.asked


async def test_clients_cannot_start_the_built_in_orchestrator():
    """Its input is a request, secrets included: whoever may start orchestrations could have them sent anywhere."""
    async with running(df.App("calls"), Network(DONE)) as env:
        for name in (HTTP_POLLING, HTTP_POLLING.upper()):
            with pytest.raises(FunctionNotFound, match="only orchestrations start it"):
                await env.client.start_new(name, None, {"request": {"method": "GET", "uri": PLACE}})


@pytest.mark.parametrize("name", [HTTP_ACTIVITY, "builtin::mine"])
def test_reserved_names_are_refused(name):
    app = df.App("calls")
    with pytest.raises(RegistrationError, match="reserved"):

        @app.activity(name=name)
        def mine() -> None: ...


def test_a_secret_shows_its_name_and_refuses_to_become_text():
    secret = df.Secret("TOKEN")
    assert repr(secret) == "Secret('TOKEN')"
    with pytest.raises(TypeError, match="pass Secret"):
        f"Bearer {secret}"
    with pytest.raises(df.PayloadError):
        payload.encode({"token": secret})
    with pytest.raises(ValueError):
        df.Secret("TOKEN", form="Bearer")


def test_a_response_is_read_as_json_as_bytes_and_as_azures_dict():
    assert DONE.json() == {"ok": True}
    assert DONE.ok
    assert DONE.header("Content-Type") == DONE["headers"]["content-type"]
    assert HttpResponse(200, content="AAE=", is_base64=True).body == b"\0\1"
    with pytest.raises(KeyError):
        DONE["StatusCode"]


async def test_environment_of_the_test_kit_keeps_what_the_user_configured(tmp_path):
    app = df.App("calls", http=df.HttpPolicy(only=["jobs.example"]))

    @app.orchestrator
    async def call(context: df.OrchestrationContext) -> Any:
        return (await context.call_http("GET", "http://127.0.0.1:1/")).status_code

    env: DurableEnvironment
    async with environment(app) as env:
        assert "HttpPolicy.only" in str((await env.run(call)).failure)
