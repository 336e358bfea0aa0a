import json
import os

import azure.durable_functions as df
import azure.functions as func
from more_functions import bp, plain

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
app.register_functions(bp)
app.register_functions(plain)


@app.route(route="start/{name}/{id?}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    body = req.get_json() if req.get_body() else None
    instance_id = await client.start_new(req.route_params["name"], req.route_params.get("id"), body)
    return client.create_check_status_response(req, instance_id)


@app.route(route="client/{id}")
@app.durable_client_input(client_name="client")
async def every_verb(req, client):
    instance_id = req.route_params["id"]
    await client.raise_event(instance_id, "answer", {"a": [1, "x"]})
    done = await client.wait_for_completion_or_create_check_status_response(req, instance_id, 100_000, 50)
    status = await client.get_status(instance_id, show_input=True)
    entity = await client.read_entity_state(df.EntityId("nobody", "here"))
    missing = await client.get_status("nowhere")
    try:
        await client.raise_event(instance_id, "answer", 1)
    except Exception as error:
        gone = str(error)
    listed = await client.get_status_all()
    purged = await client.purge_instance_history(instance_id)
    told = [
        json.loads(done.get_body()),
        status.output,
        status.runtime_status.value,
        status.input_,
        entity.entity_exists,
        missing.runtime_status,
        "gone" in gone,
        len(listed),
        purged.instances_deleted,
    ]
    return func.HttpResponse(json.dumps(told), mimetype="application/json")


@app.route(route="numbers/{n:int:range(1,9)}", methods=[func.HttpMethod.GET])
def numbers(req: func.HttpRequest, context: func.Context):
    return f"{req.route_params['n']} {req.method} {context.function_name} {os.environ['GREETING']}"


@app.route(route="sync", auth_level=func.AuthLevel.FUNCTION)
@app.durable_client_input(client_name="client")
def sync_with_client(req, client):
    return type(client).__name__


@app.route()
def nameless(req):
    return func.HttpResponse(b"\x00\x01", status_code=418, headers={"X-Kind": "tea"})


@app.route(route="broken")
def broken(req):
    raise ValueError("a secret")


@app.route(route="nothing")
def nothing(req):
    return None


@app.orchestration_trigger(context_name="context")
def echo(context):
    yield context.create_timer(context.current_utc_datetime)
    return context.get_input()
