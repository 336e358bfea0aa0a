import json

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
seen = []


@app.timer_trigger(arg_name="timer", schedule="0 0 3 * * *", use_monitor=True)
@app.durable_client_input(client_name="client")
async def nightly(timer: func.TimerRequest, client: df.DurableOrchestrationClient):
    seen.append(["nightly", timer.past_due, timer.schedule_status["Next"]])
    await client.start_new("work", None, "from the timer")


@app.timer_trigger(arg_name="timer", schedule="%EVERY%", run_on_startup=True)
def at_start(timer):
    seen.append(["at_start", timer.past_due])


@app.retry(strategy="fixed_delay", max_retry_count="2", delay_interval="00:00:10")
@app.timer_trigger(arg_name="timer", schedule="0 30 9 1 1 *")
def flaky(timer, context: func.Context):
    seen.append(["flaky", context.retry_context.retry_count])
    raise ValueError("always")


@app.queue_trigger(arg_name="message", queue_name="orders", connection="AzureWebJobsStorage")
@app.queue_output(arg_name="out", queue_name="%SECOND%", connection="AzureWebJobsStorage")
def ordered(message: func.QueueMessage, out: func.Out[str]) -> None:
    body = message.get_json()
    seen.append(["ordered", message.id, message.dequeue_count, body])
    if body == "bad":
        out.set("never sent")
        raise ValueError("bad order")
    out.set([json.dumps(body), "no json"])


@app.queue_trigger(arg_name="text", queue_name="second", connection="")
def second(text: str):
    seen.append(["second", text])


@app.queue_trigger(arg_name="text", queue_name="starts", connection="")
@app.durable_client_input(client_name="client")
async def starts(text: bytes, client):
    await client.start_new("work", None, text.decode())


@app.activity_trigger(input_name="value")
@app.queue_output(arg_name="out", queue_name="second", connection="")
def record(value: str, out: func.Out[str]) -> str:
    out.set(f"recorded {value}")
    return value


@app.orchestration_trigger(context_name="context")
def work(context):
    return (yield context.call_activity("record", context.get_input()))


@app.route(route="put/{text}")
@app.queue_output(arg_name="out", queue_name="second", connection="")
def put(req: func.HttpRequest, out: func.Out[func.QueueMessage]) -> str:
    out.set(func.QueueMessage(body=req.route_params["text"]))
    return "put"
