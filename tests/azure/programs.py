"""The patterns of Durable Functions as one writes them for Azure: decorators, bodies and client code.

`register` takes the package and an application of it, so that the very same source goes through the official
`azure.durable_functions` and through perdure.
"""

import json
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any


def register(df: ModuleType, app: Any) -> None:
    # ------------------------------------------------------------------------------ function chaining

    @app.orchestration_trigger(context_name="context")
    def chaining(context: df.DurableOrchestrationContext):
        x = yield context.call_activity("add_one", 1)
        y = yield context.call_activity("double", x)
        z = yield context.call_activity("add_one", y)
        return z

    @app.activity_trigger(input_name="number")
    def add_one(number: int) -> int:
        return number + 1

    @app.activity_trigger(input_name="number", activity="double")
    def twice(number: int) -> int:
        return number * 2

    # ------------------------------------------------------------------------------- fan out, fan in

    @app.orchestration_trigger(context_name="context")
    def backup(context: df.DurableOrchestrationContext):
        root: str = context.get_input()
        files = yield context.call_activity("list_files", root)
        tasks = []
        for file in files:
            tasks.append(context.call_activity("copy_file", file))  # noqa: PERF401
        sizes = yield context.task_all(tasks)
        total = sum(sizes)
        context.set_custom_status({"files": len(files), "bytes": total})
        return total

    @app.activity_trigger(input_name="root")
    def list_files(root: str) -> list:
        return [f"{root}/{name}" for name in ("a", "bb", "ccc")]

    @app.activity_trigger(input_name="path")
    def copy_file(path: str) -> int:
        return len(path)

    # --------------------------------------------------------------------------------------- monitor

    @app.orchestration_trigger(context_name="context")
    def monitor(context: df.DurableOrchestrationContext):
        job = context.get_input()
        expiry = context.current_utc_datetime + timedelta(seconds=job["expires"])
        polls = 0
        while context.current_utc_datetime < expiry:
            polls += 1
            status = yield context.call_activity("job_status", {"id": job["id"], "poll": polls})
            if status == "Completed":
                yield context.call_activity("send_alert", job["id"])
                return f"done after {polls}"
            next_check = context.current_utc_datetime + timedelta(seconds=job["interval"])
            yield context.create_timer(next_check)
        return f"gave up after {polls}"

    @app.activity_trigger(input_name="job")
    def job_status(job: dict) -> str:
        return "Completed" if job["poll"] >= 3 else "Running"

    @app.activity_trigger(input_name="job_id")
    def send_alert(job_id: str) -> str:
        return f"alert for {job_id}"

    # ------------------------------------------------------------------------------- human interaction

    @app.orchestration_trigger(context_name="context")
    def verification(context: df.DurableOrchestrationContext):
        phone = context.get_input()
        if not phone:
            raise Exception("A phone number input is required.")
        code = yield context.call_activity("send_challenge", phone)
        expiration = context.current_utc_datetime + timedelta(seconds=90)
        timeout = context.create_timer(expiration)
        authorized = False
        for _ in range(3):
            response = context.wait_for_external_event("SmsChallengeResponse")
            winner = yield context.task_any([response, timeout])
            if winner == response:
                if int(response.result) == code:
                    authorized = True
                    break
            else:
                break
        if not timeout.is_completed:
            timeout.cancel()
        return authorized

    @app.activity_trigger(input_name="phone")
    def send_challenge(phone: str) -> int:
        return 4711

    # ---------------------------------------------------------------------------------------- eternal

    @app.orchestration_trigger(context_name="context")
    def cleanup(context: df.DurableOrchestrationContext):
        rounds = context.get_input() or 0
        yield context.call_activity("add_one", rounds)
        yield context.create_timer(context.current_utc_datetime + timedelta(hours=1))
        if rounds < 3:
            context.continue_as_new(rounds + 1)
            return None
        return rounds

    # ------------------------------------------------------------------------------ sub-orchestrations

    @app.orchestration_trigger(context_name="context", orchestration="provision")
    def provision_devices(context: df.DurableOrchestrationContext):
        ids = context.get_input()
        tasks = []
        for number, device in enumerate(ids):
            child_id = f"{context.instance_id}-{number}"
            tasks.append(context.call_sub_orchestrator("provision_device", device, child_id))
        return (yield context.task_all(tasks))

    @app.orchestration_trigger(context_name="context")
    def provision_device(context: df.DurableOrchestrationContext):
        device = context.get_input()
        package = yield context.call_activity("copy_file", device)
        return [device, package, context.parent_instance_id]

    # ---------------------------------------------------------------------------------- errors, retries

    @app.orchestration_trigger(context_name="context")
    def transfer(context: df.DurableOrchestrationContext):
        retry = df.RetryOptions(first_retry_interval_in_milliseconds=5000, max_number_of_attempts=3)
        began = context.current_utc_datetime
        yield context.call_activity_with_retry("flaky", retry, {"key": context.instance_id, "fails": 2})
        waited = (context.current_utc_datetime - began).total_seconds()
        try:
            yield context.call_activity("flaky", {"key": context.instance_id + "x", "fails": 1})
        except Exception:
            yield context.call_activity("send_alert", "compensate")
            return f"compensated, waited {waited:.0f}"
        return "transferred"

    attempts: dict[str, int] = {}

    @app.activity_trigger(input_name="job")
    def flaky(job: dict) -> str:
        attempts[job["key"]] = attempts.get(job["key"], 0) + 1
        if attempts[job["key"]] <= job["fails"]:
            raise ValueError("not yet")
        return "ok"

    # ---------------------------------------------------------------------------------------- entities

    @app.entity_trigger(context_name="context", entity_name="Counter")
    def counter(context: df.DurableEntityContext):
        value = context.get_state(lambda: 0)
        operation = context.operation_name
        if operation == "add":
            value += context.get_input()
        elif operation == "reset":
            value = 0
        elif operation == "get":
            context.set_result(value)
        context.set_state(value)

    @app.orchestration_trigger(context_name="context")
    def counting(context: df.DurableOrchestrationContext):
        entity_id = df.EntityId("Counter", "my-counter")
        context.signal_entity(entity_id, "add", 3)
        before = yield context.call_entity(entity_id, "get")
        yield context.call_entity(entity_id, "add", 4)
        after = yield context.call_entity(entity_id, "get")
        return [before, after]

    # ------------------------------------------------------------------------------ everything the context says

    @app.orchestration_trigger(context_name="context", input_type=dict)
    def facts(context: df.DurableOrchestrationContext):
        context.set_custom_status("seen")
        result = yield context.task_any(
            [context.wait_for_external_event("a"), context.wait_for_external_event("b")]
        )
        ids = [context.new_uuid(), str(context.new_guid()), context.new_uuid()]
        return {
            "instance": context.instance_id,
            "parent": context.parent_instance_id,
            "input": context.get_input(),
            "version": context.version or "",
            "status": context.custom_status,
            "replaying": context.is_replaying,
            "continues": context.will_continue_as_new,
            "now": isinstance(context.current_utc_datetime, datetime),
            "first": json.dumps(result.result),
            "ids": len(set(ids)),
            "nothing": not (yield context.task_all([])),  # there None, here []
        }
