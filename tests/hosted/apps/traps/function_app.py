"""Each orchestrator is one trap of the SDK's semantics; what it returns is what it returns on Azure."""

import inspect
import json
from datetime import datetime, timedelta

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)
ran = []
is_typed = "input_type" in inspect.signature(app.orchestration_trigger).parameters  # since 1.6


class Money:
    def __init__(self, cents):
        self.cents = cents

    @staticmethod
    def to_json(money):
        return str(money.cents)

    @staticmethod
    def from_json(text):
        return Money(int(text))


TYPED = {"input_type": Money} if is_typed else {}


class PatientRetry(df.RetryOptions):
    """What the protocol knows, and the package does not offer."""

    def to_json(self):
        return {**super().to_json(), "backoffCoefficient": 2.0, "maxRetryIntervalInMilliseconds": 3_000}


@app.activity_trigger(input_name="text")
def shout(text: str) -> str:
    ran.append(text)
    return text.upper()


@app.activity_trigger(input_name="what")
def fail(what):
    ran.append(what)
    raise ValueError(f"no {what}")


@app.activity_trigger(input_name="number", activity="Doubled")
async def double_it(number):
    return number * 2


@app.activity_trigger(input_name="key")
def third_time(key):
    ran.append(key)
    if ran.count(key) < 3:
        raise RuntimeError("not yet")
    return ran.count(key)


@app.activity_trigger(input_name="money")
def spend(money: Money) -> Money:
    return Money(money.cents - 1)


@app.activity_trigger(input_name="value")
def same(value):
    return value


@app.activity_trigger(input_name="value")
def no_json(value):
    return {1, 2}


@app.function_name("told_of_itself")
@app.activity_trigger(input_name="_")
def about(_, context: func.Context):
    return [context.function_name, bool(context.invocation_id), context.function_directory.endswith("traps")]


@app.orchestration_trigger(context_name="context")
def never_yielded(context):
    context.call_activity("shout", "never")
    context.create_timer(context.current_utc_datetime + timedelta(days=400))
    kept = context.call_activity("shout", "later")
    first = yield context.call_activity("shout", "first")
    return [first, (yield kept)]


@app.orchestration_trigger(context_name="context")
def twice(context):
    task = context.call_activity("shout", "once")
    one = yield task
    two = yield task
    three = yield context.task_all([task])
    return [one, two, three, task.result]


@app.orchestration_trigger(context_name="context")
def nested_again(context):
    first = context.task_any([context.call_activity("shout", "a"), context.wait_for_external_event("never")])
    yield first
    both = context.task_all([first, context.call_activity("shout", "b")])
    yield context.task_any([both])
    again = yield context.task_all([both, context.task_all([first])])
    return [again[0][0].result, again[0][1], again[1][0] is again[0][0]]


@app.orchestration_trigger(context_name="context")
def reused_timer(context):
    timer = context.create_timer(context.current_utc_datetime + timedelta(hours=2))
    seen = []
    while True:
        event = context.wait_for_external_event("tick")
        winner = yield context.task_any([timer, event])
        if winner is timer:
            return seen
        assert winner == event
        seen.append(winner.result)


@app.orchestration_trigger(context_name="context")
def failed_result(context):
    task = context.call_activity("fail", "luck")
    winner = yield context.task_any(
        [task, context.create_timer(context.current_utc_datetime + timedelta(days=1))]
    )
    return [winner is task, isinstance(task.result, Exception), "ValueError: no luck" in str(task.result)]


@app.orchestration_trigger(context_name="context")
def caught(context):
    try:
        yield context.call_activity(fail, "bread")
    except Exception as error:
        return [
            type(error).__name__,
            str(error).startswith("Activity function 'fail' failed: ValueError: no bread"),
        ]


@app.orchestration_trigger(context_name="context")
def uncaught(context):
    yield context.call_activity("fail", "mercy")


@app.orchestration_trigger(context_name="context")
def nothing(context):
    return [(yield context.task_all([]))]


@app.orchestration_trigger(context_name="context")
def newest_wait(context):
    older = context.wait_for_external_event("Go")
    newer = context.wait_for_external_event("go")
    timer = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
    first = yield context.task_any([older, newer, timer])
    second = yield context.task_any([older, timer])
    return [first is newer, newer.result, second is older, older.result]


@app.orchestration_trigger(context_name="context")
def cancelled_timers(context):
    early = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
    early.cancel()
    asked = context.create_timer(context.current_utc_datetime + timedelta(days=30))
    naive = context.create_timer((context.current_utc_datetime + timedelta(minutes=5)).replace(tzinfo=None))
    yield context.task_any([asked, naive])
    asked.cancel()
    asked.cancel()
    open_one = context.create_timer(context.current_utc_datetime + timedelta(days=300))
    yield context.task_any([open_one, context.call_activity("shout", "x")])
    return [early.is_cancelled, asked.is_cancelled, asked.is_completed, naive.is_completed]


@app.orchestration_trigger(context_name="context")
def generations(context):
    round_ = context.get_input() or 0
    if round_ == 3:
        return "done after 3"
    context.continue_as_new(round_ + 1)
    context.continue_as_new(99)
    context.signal_entity(df.EntityId("log", "generations"), "add", 1)
    yield context.call_activity("shout", "behind continue_as_new")
    return "ignored"


@app.orchestration_trigger(context_name="context")
def plain_generations(context):
    if context.get_input() == "again":
        return context.instance_id
    context.continue_as_new("again")


@app.orchestration_trigger(context_name="context")
def failed_inner(context):
    at = context.current_utc_datetime
    inner = context.task_all(
        [context.call_activity("fail", "a"), context.create_timer(at + timedelta(hours=1))]
    )
    outer = yield context.task_any([inner, context.wait_for_external_event("never")])
    yield context.create_timer(at + timedelta(hours=2))
    return [outer is inner, isinstance(inner.result, Exception), len(outer.children)]


@app.orchestration_trigger(context_name="context")
def lists_and_none(context):
    told = []
    for odd in ([context.call_activity("shout", "x")], None, 5):
        try:
            yield odd
        except Exception as error:
            told.append(type(error).__name__)
    return told


@app.orchestration_trigger(context_name="context")
def names(context: df.DurableOrchestrationContext) -> list[str]:
    own = context.instance_id
    return [
        (yield context.call_activity("SHOUT", "a")),
        (yield context.call_activity("Doubled", 2)),
        (yield context.call_activity(double_it, 3)),
        (yield context.call_activity("told_of_itself", None)),
        (yield context.call_sub_orchestrator("Renamed", "x")),
        (yield context.call_sub_orchestrator(child, "y")),
        (yield context.call_sub_orchestrator("tells_its_id", None, f"{own}:1")) == f"{own}:1",
    ]


@app.orchestration_trigger(context_name="context")
def tells_its_id(context):
    return context.instance_id
    yield


@app.orchestration_trigger(context_name="ctx", orchestration="Renamed")
def child(context):
    return [context.get_input(), context.parent_instance_id is not None]


@app.orchestration_trigger(context_name="context")
def values(context):
    money = yield context.call_activity(spend, Money(5))
    passed = []
    for value in ("null", "5", '{"a": 1}', None, {"b": [1]}, 1.5, "ü\u2028"):
        came = yield context.call_activity("same", value)
        passed += [came == value]
    try:
        yield context.call_activity("no_json", 1)
    except Exception as error:
        passed.append("JSON" in str(error))
    return [money.cents, type(money).__name__, passed]


@app.orchestration_trigger(context_name="context", **TYPED)
def custom_input(context):
    context.set_custom_status(0)
    zero = context.custom_status
    context.set_custom_status({"cents": context.get_input().cents})
    yield context.call_activity("shout", "x")
    return [zero, context.get_input().cents, context.version]


@app.orchestration_trigger(context_name="context")
def histories(context):
    return [type(one).__name__ for one in context.histories]
    yield


@app.orchestration_trigger(context_name="context")
def retried(context):
    options = df.RetryOptions(1_000, 3)
    got = yield context.call_activity_with_retry("third_time", options, context.instance_id)
    began = context.current_utc_datetime
    try:
        yield context.call_activity_with_retry("fail", PatientRetry(1_000, 4), "patience")
    except Exception as error:
        told = "no patience" in str(error)
    waited = (context.current_utc_datetime - began).total_seconds()
    return [got, told, waited]


@app.orchestration_trigger(context_name="context")
def retried_together(context):
    options = df.RetryOptions(5_000, 2)
    both = [context.call_activity_with_retry("fail", options, "one"), context.call_activity("shout", "two")]
    winner = yield context.task_any(both)
    try:
        yield context.task_all(both)
    except Exception as error:
        return [winner is both[1], "no one" in str(error)]


@app.orchestration_trigger(context_name="context")
def retried_child(context):
    try:
        yield context.call_sub_orchestrator_with_retry(
            "uncaught", df.RetryOptions(1_000, 2), None, "the-child"
        )
    except Exception as error:
        return str(error).startswith("Orchestrator function 'uncaught' failed: ")


@app.orchestration_trigger(context_name="context")
def entities(context):
    counter = df.EntityId("Counter", "with@sign")
    context.signal_entity(counter, "add", 2)
    five = yield context.call_entity(counter, "add", 3)
    try:
        yield context.call_entity(counter, "break", 1)
    except Exception as error:
        told = str(error)
    after = yield context.call_entity(counter, "get")
    yield context.call_entity(counter, "delete")
    gone = yield context.call_entity(counter, "exists")
    return [five, told, after, gone]


@app.entity_trigger(context_name="context")
def counter(context: df.DurableEntityContext) -> None:
    total = context.get_state(lambda: 0)
    operation = context.operation_name
    if operation == "add":
        total += context.get_input()
        context.set_state(total)
    elif operation == "break":
        context.set_state(1_000)
        raise ValueError(f"broken: {context.entity_name} {context.entity_key}")
    elif operation == "delete":
        context.destruct_on_exit()
        return
    context.set_result(total)


@app.entity_trigger(context_name="context", entity_name="log")
def kept_log(context):
    context.set_state(context.get_state(lambda: 0) + context.get_input())


@app.orchestration_trigger(context_name="context")
def identity(context):
    kinds = [isinstance(context, df.DurableOrchestrationContext), isinstance(context.task_all([]), object)]
    ids = [str(context.new_uuid()), str(context.new_guid())]
    yield context.call_activity("shout", "between")
    ids += [str(context.new_uuid()), str(context.new_guid())]
    yield context.call_activity("shout", json.dumps(ids))
    return [kinds, len(set(ids)), context.is_replaying, isinstance(context.current_utc_datetime, datetime)]


@app.orchestration_trigger(context_name="context")
def long_timer(context):
    began = context.current_utc_datetime
    yield context.create_timer(began + timedelta(days=45))
    return (context.current_utc_datetime - began).days


@app.orchestration_trigger(context_name="context")
def many(context):
    tasks = [context.call_activity("Doubled", number) for number in range(50)]
    total = 0
    while tasks:
        winner = yield context.task_any(tasks)
        tasks.remove(winner)
        total += winner.result
    return total
