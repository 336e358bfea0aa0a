"""The metrics of this server's engine, for Prometheus."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import Response

from perdure.errors import ExtraMissing
from perdure.http.contract import Answer, Contract
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of
from perdure.http.table import Endpoint
from perdure.telemetry.metrics import metrics_of
from perdure.telemetry.prometheus import page

if TYPE_CHECKING:
    from starlette.requests import Request


async def metrics(request: Request) -> Response:
    """GET metrics: the metrics of this worker and its hub, in the text of Prometheus; of all workers of a supervisor.

    With `Accept: application/openmetrics-text` the answer is OpenMetrics, with the trace ids of the slowest as
    exemplars.
    """
    found = metrics_of(engine_of(client_of(request)).telemetry)
    if found is None:
        raise HTTPException(
            404,
            "this worker counts nothing: the setting telemetry is off, or it is auto and the extra telemetry is not "
            "installed. Run: pip install 'perdure[telemetry]', and start the worker with --telemetry auto or on",
        )
    accept = request.headers.get("accept", "")
    if found.gather is not None:
        workers = await found.gather()
    else:
        workers = [(found.worker, await asyncio.to_thread(found.read))]
    written = await asyncio.to_thread(page, workers, accept)
    return Response(written.content, headers={"Content-Type": written.content_type})


ENDPOINTS = (
    Endpoint(
        "/metrics",
        ("GET",),
        metrics,
        "metrics",
        contract=Contract(
            answers=(
                Answer(
                    200, str, "The metrics, in the text of Prometheus or OpenMetrics.", media="text/plain"
                ),
            ),
            errors=(ExtraMissing,),
        ),
    ),
)
"""Below /."""

__all__ = ["ENDPOINTS"]
