"""Registering functions: names, what is refused while decorating, and what each parameter receives."""

import functools
from dataclasses import dataclass

import pytest

from perdure import ActivityContext, App, FunctionNotFound, OrchestrationContext, RegistrationError
from perdure.engine.functions.registry import name_of, plan_of


@dataclass
class Claim:
    amount: int


class Ledger:
    pass


@pytest.fixture
def app() -> App:
    return App("claims")


def plan(app: App, name: str = "pay", available: tuple[type, ...] = (ActivityContext, Ledger)):
    return plan_of(app.registry.activity(name), available)


def test_decorators_work_bare_and_called_and_return_the_function_itself(app):
    def pay(claim: Claim) -> int:
        return claim.amount

    assert app.activity(pay) is pay
    assert app.activity(name="settle")(pay) is pay
    assert pay(Claim(5)) == 5
    assert sorted(app.registry.activities) == ["pay", "settle"]


def test_a_name_can_be_taken_once(app):
    @app.activity(name="pay")
    def one(): ...

    with pytest.raises(RegistrationError, match=r"'pay' is already taken by .*one.*name="):

        @app.activity(name="pay")
        def two(): ...


def test_an_activity_and_an_orchestrator_may_share_a_name(app):
    app.activity(name="same")(lambda: None)

    @app.orchestrator(name="same")
    def other(context):
        yield

    assert app.registry.orchestrator("same").function is other


@pytest.mark.parametrize("name", ["", "a/b", "a#b", "a\n", "x" * 201])
def test_an_unusable_name_is_refused(app, name):
    with pytest.raises(RegistrationError, match="not a usable name"):
        app.activity(name=name)(lambda: None)


@pytest.mark.parametrize("name", ["", "a b", "x" * 101, "a/b"])
def test_an_unusable_hub_name_is_refused(name):
    with pytest.raises(RegistrationError):
        App(name)


def test_a_generator_cannot_be_an_activity(app):
    with pytest.raises(RegistrationError, match="[Oo]nly an orchestrator can yield"):

        @app.activity
        def pay():
            yield


def test_an_async_generator_cannot_be_an_orchestrator(app):
    with pytest.raises(RegistrationError, match="async generator"):

        @app.orchestrator
        async def claims(context):
            yield


def test_an_orchestrator_without_a_context_is_refused_while_decorating(app):
    with pytest.raises(RegistrationError, match="takes its context"):

        @app.orchestrator
        def claims():
            yield


def test_an_orchestrator_with_three_parameters_is_refused_while_decorating(app):
    with pytest.raises(RegistrationError, match="takes its context, or its context and one input"):

        @app.orchestrator
        def claims(context, claim, more):
            yield


def test_an_orchestrator_whose_first_parameter_is_something_else_is_refused_at_the_start(app):
    from perdure.engine.functions.registry import orchestrator_input

    @app.orchestrator
    def claims(claim: Claim):
        yield

    with pytest.raises(RegistrationError, match="first parameter is the OrchestrationContext"):
        orchestrator_input(app.registry.orchestrator("claims"))


def test_a_lifespan_is_an_async_generator(app):
    with pytest.raises(RegistrationError, match="async generator"):

        @app.lifespan
        def resources():
            yield 1


@pytest.mark.parametrize(
    "wrong", [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"concurrency": 0}]
)
def test_limits_that_make_no_sense_are_refused_while_decorating(app, wrong):
    with pytest.raises(RegistrationError):

        @app.activity(**wrong)
        def pay(): ...


@pytest.mark.parametrize("name", ["*", "", "a*b", "**", 5])
def test_a_star_is_allowed_only_at_the_end_of_an_event_name(app, name):
    with pytest.raises(RegistrationError, match="event name"):

        @app.orchestrator(events={name: int})
        def claims(context):
            yield


def test_parameters_are_filled_by_their_types_and_the_one_left_is_the_input(app):
    @app.activity
    def pay(ledger: Ledger, claim: Claim, context: ActivityContext): ...

    found = plan(app)

    assert (found.input_name, found.input_type) == ("claim", Claim)
    assert found.given == {"ledger": Ledger, "context": ActivityContext}


def test_an_activity_may_take_nothing_or_its_context_alone(app):
    @app.activity
    def nothing(): ...

    @app.activity
    def alone(context: ActivityContext): ...

    assert plan(app, "nothing").input_name is None
    assert plan(app, "alone").input_name is None


def test_a_resource_may_be_asked_for_by_its_base_class_or_as_optional(app):
    class SqlLedger(Ledger):
        pass

    @app.activity
    def pay(ledger: Ledger | None, claim): ...

    assert plan(app, available=(ActivityContext, SqlLedger)).given == {"ledger": SqlLedger}


def test_two_parameters_left_over_are_refused_with_what_to_do(app):
    @app.activity
    def pay(claim, receipt): ...

    with pytest.raises(RegistrationError, match=r"claim, receipt.*in one dataclass"):
        plan(app)


def test_types_defined_further_down_and_locally_are_found(app):
    @app.activity
    def pay(claim: "Later"): ...

    @dataclass
    class Later:
        pass

    with pytest.raises(RegistrationError, match="Later"):
        plan(app)

    @dataclass
    class Local:
        pass

    @app.activity
    def known(claim: "Local"): ...

    assert plan(app, "known").input_type is Local


def test_a_decorated_function_is_taken_for_what_it_wraps(app):
    def loud(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    @app.activity
    @loud
    def pay(claim: Claim) -> int:
        return claim.amount

    assert plan(app).input_type is Claim
    assert name_of(pay) == "pay"


def test_a_function_nobody_registered_is_named_with_its_place():
    def stray(): ...

    with pytest.raises(FunctionNotFound, match=r"stray .*test_registry\.py:\d+"):
        name_of(stray)


def test_an_unknown_name_is_answered_with_the_known_ones(app):
    @app.activity
    def pay(): ...

    with pytest.raises(FunctionNotFound, match="'pai' is registered in this application; it has pay"):
        app.registry.activity("pai")


def test_annotations_that_name_nothing_are_reported_all_at_the_start(app):
    @app.activity
    def pay(claim: "Nowhere"): ...  # noqa: F821

    with pytest.raises(RegistrationError, match="must exist at run time"):
        app.registry.check()


def test_a_class_attribute_style_context_annotation_is_understood(app):
    from perdure.engine.functions.registry import orchestrator_input

    @app.orchestrator
    def claims(context: OrchestrationContext, claim: Claim):
        yield

    assert orchestrator_input(app.registry.orchestrator("claims")) == (True, Claim)
