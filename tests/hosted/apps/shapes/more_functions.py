import azure.durable_functions as df
import azure.functions as func

bp = df.Blueprint()
plain = func.Blueprint()


@bp.orchestration_trigger(context_name="context")
def ask(context):
    answer = yield context.wait_for_external_event("Answer")
    return answer


@plain.route(route="files/{*path}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def files(req: func.HttpRequest) -> str:
    return req.route_params.get("path", "none")
