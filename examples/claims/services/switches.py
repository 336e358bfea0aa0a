"""The switch of a service: a file that makes it slow, wrong or absent while it exists.

A file needs no client and survives a restart of the service: `touch bank.switch` turns the bank off. `GET /switch`
and `PUT /switch` read and write the same file, for a page with buttons.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

Endpoint = Callable[[Request], Awaitable[Response]]
Mode = Literal["on", "away", "slow", "wrong", "refuse", "lose"]


@dataclass(frozen=True)
class Setting:
    """What a switch says. `seconds` is how late a slow service answers."""

    mode: Mode = "on"
    seconds: Annotated[float, msgspec.Meta(ge=0, le=600)] = 0.0


class Switch:
    """The switch of the service `name`, a file in `folder`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._path = folder / f"{name}.switch"

    def read(self) -> Setting:
        """What the file says. A text that is no setting means `away`, as an empty one does."""
        try:
            mode, _, seconds = self._path.read_text("utf-8").strip().partition(" ")
        except FileNotFoundError:
            return Setting()
        try:
            return msgspec.convert({"mode": mode, "seconds": float(seconds or 0)}, Setting)
        except ValueError:
            return Setting("away")

    def write(self, setting: Setting) -> None:
        """Set the switch; `on` removes the file."""
        if setting.mode == "on":
            self._path.unlink(missing_ok=True)
            return
        draft = self._path.with_suffix(f".{os.getpid()}.draft")
        draft.write_text(f"{setting.mode} {setting.seconds:g}\n", "utf-8")
        draft.replace(self._path)

    def over(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint under this switch: the modes that each service has."""

        async def switched(request: Request) -> Response:
            setting = self.read()
            if setting.mode == "away":
                return problem(503, f"the service {self.name} is away", {"Retry-After": "1"})
            if setting.mode == "wrong":
                return HTMLResponse("<!doctype html><title>Welcome</title><h1>It works!</h1>")
            if setting.mode == "slow":
                await asyncio.sleep(setting.seconds)
            return await endpoint(request)

        return switched

    def routes(self) -> list[Route]:
        """The routes that show and set the switch, and `/health`. They answer in every mode."""
        return [
            Route("/health", self._health),
            Route("/switch", self._show),
            Route("/switch", self._set, methods=["PUT"]),
        ]

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"service": self.name, "mode": self.read().mode})

    async def _show(self, request: Request) -> Response:
        return JSONResponse(msgspec.to_builtins(self.read()))

    async def _set(self, request: Request) -> Response:
        try:
            setting = msgspec.json.decode(await request.body(), type=Setting)
        except msgspec.DecodeError as error:
            return problem(400, f"not a setting: {error}. The modes are {', '.join(get_args(Mode))}")
        self.write(setting)
        return JSONResponse(msgspec.to_builtins(setting))


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in the one form that all services use."""
    return JSONResponse({"detail": detail}, status, headers)
