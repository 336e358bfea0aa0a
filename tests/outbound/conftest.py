"""A real HTTP server on loopback, whose answers the test writes byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from perdure.model.http_calls import HttpRequest, request_of
from perdure.outbound import HttpPolicy, Sender


@dataclass
class Asked:
    """A request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Server:
    """A server that responds by path and records the requests. An unknown path gives 404."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    answers: dict[str, bytes | Callable[[Asked], bytes] | None] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            asked = Asked(*first.split(" ")[:2], headers, body)
            self.asked.append(asked)
            written = self.answers.get(asked.target, answer(404))
            if written is None:
                await reader.read()  # never answers; ends when the client goes
                return
            writer.write(written(asked) if callable(written) else written)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    told = Server()
    listening = await asyncio.start_server(told.serve, "127.0.0.1", 0)
    told.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield told


@pytest.fixture
def local() -> HttpPolicy:
    return HttpPolicy(allow=["127.0.0.1", "localhost"], timeout=30)


def asking(uri: str, method: str = "GET", content: object = None, headers: object = None, **more: object):
    request: HttpRequest = request_of(method, uri, content, headers or {}, is_raw_str=False)  # type: ignore[arg-type]
    return request


async def send(policy: HttpPolicy, request: HttpRequest, *, resolve=None, key: str = "i:e:0"):
    async with Sender(policy, resolve=resolve) as sender:
        return await sender.send(request, key)
