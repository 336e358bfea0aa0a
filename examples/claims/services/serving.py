"""Starts one service: its arguments, its folder, its port."""

import argparse
import os
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

HOST = "127.0.0.1"  # the services know no users, and the machine's own programs are all who call them


def serve(title: str, port: int, make: Callable[[Path], Starlette]) -> None:
    """Run a service until it is stopped. `make` gets the folder for its files."""
    parser = argparse.ArgumentParser(description=f"The {title} of the claims office.")
    parser.add_argument("--port", type=int, default=port, help=f"default: {port}; 0 takes a free one")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("CLAIMS_HOME", ".")))
    arguments = parser.parse_args()

    arguments.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    app = make(arguments.home)
    with socket.create_server((HOST, arguments.port)) as listening:
        print(f"{title}: http://{HOST}:{listening.getsockname()[1]}", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        server.run(sockets=[listening])
