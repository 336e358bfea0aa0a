"""A stand-in for the ingestion endpoint of Application Insights: it keeps what the exporters send."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "00000000-0000-0000-0000-000000000001"
TABLES = {
    "RequestData": "requests",
    "RemoteDependencyData": "dependencies",
    "ExceptionData": "exceptions",
    "MessageData": "traces",
    "EventData": "customEvents",
    "MetricData": "customMetrics",
}


class Ingestion:
    """What arrived."""

    def __init__(self, port: int) -> None:
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        self.connection_string = f"InstrumentationKey={KEY};IngestionEndpoint=http://127.0.0.1:{port}/"

    @property
    def environment(self) -> dict[str, str]:
        """The variables for a process that exports here, and nowhere else."""
        return {
            "APPLICATIONINSIGHTS_CONNECTION_STRING": self.connection_string,
            "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
            "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
            "NO_PROXY": "*",
        }

    @property
    def envelopes(self) -> list[dict[str, Any]]:
        return [envelope for body in self.bodies for envelope in json.loads(body)]

    @property
    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of each table, with the columns that Application Insights would show."""
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES.values()}
        for envelope in self.envelopes:
            found[TABLES[envelope["data"]["baseType"]]].append(_row(envelope))
        return found


def _row(envelope: dict[str, Any]) -> dict[str, Any]:
    tags, data = envelope["tags"], envelope["data"]["baseData"]
    row = {
        "timestamp": envelope["time"],
        "operation_Id": tags.get("ai.operation.id"),
        "operation_ParentId": tags.get("ai.operation.parentId"),
        "operation_Name": tags.get("ai.operation.name"),
        "cloud_RoleName": tags.get("ai.cloud.role"),
        "cloud_RoleInstance": tags.get("ai.cloud.roleInstance"),
        "customDimensions": data.get("properties") or {},
        "customMeasurements": data.get("measurements") or {},
    }
    match envelope["data"]["baseType"]:
        case "RequestData":
            row |= {k: data.get(k) for k in ("id", "name", "success", "resultCode")}
            row["duration"] = milliseconds(data["duration"])
        case "RemoteDependencyData":
            row |= {k: data.get(k) for k in ("id", "name", "success", "type", "resultCode", "target")}
            row["duration"] = milliseconds(data["duration"])
        case "ExceptionData":
            [first, *_] = data["exceptions"]
            row |= {"type": first["typeName"], "outerMessage": first["message"]}
        case "MessageData":
            row |= {"message": data["message"], "severityLevel": data.get("severityLevel")}
        case "EventData":
            row |= {"name": data["name"]}
        case "MetricData":
            [metric] = data["metrics"]
            row |= {
                "name": metric["name"],
                "value": metric["value"],
                "valueSum": metric["value"],
                "valueCount": metric.get("count"),
                "valueMin": metric.get("min"),
                "valueMax": metric.get("max"),
            }
    return row


def milliseconds(duration: str) -> float:
    """A duration `d.hh:mm:ss.fff` as the tables show it."""
    days, _, rest = duration.partition(".") if duration.count(".") > 1 else ("0", "", duration)
    hours, minutes, seconds = rest.split(":")
    return ((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60_000 + float(seconds) * 1_000


@contextmanager
def ingestion() -> Iterator[Ingestion]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            found.paths.add(self.path)
            found.bodies.append(body)
            count = len(json.loads(body))
            answer = json.dumps({"itemsReceived": count, "itemsAccepted": count, "errors": []}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Ingestion(server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()
