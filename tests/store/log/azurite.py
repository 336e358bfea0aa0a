"""Azurite's tables and blobs, on ports of their own."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure.store.log.account import Account, account_of
from tests.brokers.servers import ACCOUNT, KEY, Server, serving
from tests.postgres.servers import free_port


@contextmanager
def azurite(directory: Path) -> Iterator[str]:
    """In memory: killed, it would forget. Gives its connection string."""
    table, blob, queue = free_port(), free_port(), free_port()
    program = Path(__file__).parents[3] / ".venv" / "azurite" / "node_modules" / ".bin" / "azurite"
    found = os.environ.get("PERDURE_AZURITE_ALL") or (str(program) if program.exists() else "azurite")
    ports = ["--tablePort", str(table), "--blobPort", str(blob), "--queuePort", str(queue)]
    options = ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
        f"TableEndpoint=http://127.0.0.1:{table}/{ACCOUNT};BlobEndpoint=http://127.0.0.1:{blob}/{ACCOUNT};"
    )
    with serving(Server(connection, [found, *ports, *options], table, directory)):
        _await_port(blob)
        yield connection


def _await_port(port: int) -> None:
    """The blobs may be there later than the tables."""
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.05)


def account_at(connection: str) -> Account:
    return account_of({"AzureWebJobsStorage": connection})
