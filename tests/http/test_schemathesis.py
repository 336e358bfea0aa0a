"""The description of the API, held against the server: every operation, with and without a key, and in sequence."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.requests import Request

import perdure as df
from tests.http.conftest import Decision, make_app
from tests.http.serving import served

KEY = "the-administrators-own-long-key"
CHECKED = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
CREDENTIALS = {"x-functions-key", "X-Functions-Key", "authorization", "Authorization", "code", "sig"}
WALKED = ["start", "get_instance", "raise_event", "suspend", "resume", "terminate", "rewind", "purge"]
FEW = settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
# A request with a mistake costs a quarter of a second to draw: the first few of them, unless there is time.
FEWER = settings(FEW, max_examples=3)


def described_app() -> df.App:
    app = make_app()

    @app.route("/orders/{number}", methods=["POST"])
    async def order(number: int, decision: Decision, client: df.Client) -> Decision:
        return Decision(decision.approved, str(number))

    @app.route("/raw", methods=["GET"], auth="anonymous")
    async def raw(request: Request) -> dict[str, str]:
        return dict(request.query_params)

    return app


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    """A request that may wait for an instance's end waits less long than the tool has patience."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("perdure.http.api.management.LONGEST_WAIT", 0.5)
        yield


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    host = described_app().asgi(store="memory:", admin_key=KEY, rate_limit=100_000)
    with served(host) as found:
        serving: Any = host._serving
        serving.app.app.state.access._failures.take = lambda _: 0  # how often one may try is another test
        yield found


@pytest.fixture(scope="module")
def schema(address: str) -> Any:
    found = schemathesis.openapi.from_url(f"{address}/openapi.json", headers={"x-functions-key": KEY})
    found.config.generation.update(modes=[GenerationMode.POSITIVE])
    return found


def each_operation(schema: Any, **generation: Any) -> Iterator[tuple[Any, Any]]:
    for found in schema.get_all_operations():
        operation = found.ok()
        yield operation, operation.as_strategy(**generation)


def hold_against(schema: Any, check: Any, examples: settings = FEW, **generation: Any) -> None:
    """Run a check with generated requests over every operation; tells of all that fail it."""
    wrong = []
    for operation, cases in each_operation(schema, **generation):
        try:
            examples(given(case=cases)(check))()
        except Unsatisfiable:
            continue  # there is nothing wrong to be sent
        except Exception as error:
            wrong.append(f"{operation.label}: {error}")
    assert not wrong, "\n\n".join(wrong)


def test_with_a_key_the_server_does_what_it_says(schema: Any) -> None:
    def check(case: Any) -> None:
        case.call_and_validate(headers={"x-functions-key": KEY}, checks=CHECKED)

    hold_against(schema, check)


def test_what_the_description_forbids_is_refused(schema: Any, pytestconfig: pytest.Config) -> None:
    def check(case: Any) -> None:
        # What is there and empty counts as not given.
        assume(all(all(found) if isinstance(found, list) else found for found in (case.query or {}).values()))
        assume(all((case.headers or {}).values()))
        # Blanks around a header's value are not part of it (RFC 9110, 5.5), nor of its length.
        assume(all(str(text) == str(text).strip() for text in (case.headers or {}).values()))
        answer = case.call(headers={"x-functions-key": KEY})
        case.validate_response(answer, checks=(*CHECKED, negative_data_rejection))

    examples = FEW if pytestconfig.getoption("--long") else FEWER
    hold_against(schema, check, examples, generation_mode=GenerationMode.NEGATIVE)


def test_without_a_key_nothing_is_answered_but_401(schema: Any, address: str) -> None:
    def check(case: Any) -> None:
        for given_ in (case.headers or {}, case.query or {}):
            for name in CREDENTIALS:
                given_.pop(name, None)
        answer = case.call()
        if case.operation.definition.raw["security"]:
            assert answer.status_code == 401, answer.text
        else:
            assert answer.status_code != 401
        case.validate_response(answer, checks=CHECKED)

    hold_against(schema, check)


def test_what_a_start_leads_to_in_any_order(schema: Any) -> None:
    """Links of the description: start, then status, events, suspension, purge, with the id of the start."""

    walked = schema.include(operation_id=WALKED)

    class Walk(walked.as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: Any) -> None:
            for name, text in case.path_parameters.items():  # a link that found no id makes it empty
                case.path_parameters[name] = text or "nobody"
            if case.operation.definition.raw["operationId"].startswith("start"):
                case.path_parameters["name"] = "approval"
            for name in ("taskHub", "startAt", "version", "timeout"):
                (case.query or {}).pop(name, None)

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": {"x-functions-key": KEY}}

        def after_call(self, response: Any, case: Any) -> None:
            seen.add((case.operation.definition.raw["operationId"], response.status_code))

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            case.validate_response(response, checks=CHECKED)

    seen: set[tuple[str, int]] = set()
    wanted = {("start", 202), ("get_instance", 202), ("suspend", 202), ("terminate", 202)}
    purges = {("purge", 409), ("purge", 200)}
    walk = settings(FEW, max_examples=50, stateful_step_count=8, phases=[Phase.generate], derandomize=False)
    for no in range(8):  # where they go is chance: one round may miss some of these, eight do not
        run_state_machine_as_test(seed(no)(Walk), settings=walk)
        if wanted <= seen and purges & seen:
            break

    assert wanted <= seen and purges & seen, seen
