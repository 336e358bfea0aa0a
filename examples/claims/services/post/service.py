"""The post over HTTP: messages come in, and a page shows each once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from examples.claims.services.pages import HEADERS, PAGES, STATIC, page
from examples.claims.services.post.letters import parts_of
from examples.claims.services.post.mailbox import Arrived, Kind, Link, Mailbox, Message, Search
from examples.claims.services.switches import Switch, problem

NOWHERE = "nowhere"  # nothing can be delivered to an address with this word
ON_A_PAGE, IN_A_LIST = 60, 1_000
PAGES.filters["parts"] = parts_of

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Address = Annotated[str, msgspec.Meta(pattern="^(https?://|/)", max_length=2_000)]  # no javascript:


class LinkRequest(msgspec.Struct, frozen=True):
    label: Text
    url: Address
    about: Annotated[str, msgspec.Meta(max_length=200)] = ""


class MessageRequest(msgspec.Struct, frozen=True):
    key: Text
    kind: Kind
    to: Text
    address: Text
    claim_id: Text
    subject: Text
    text: Annotated[str, msgspec.Meta(max_length=10_000)]
    links: Annotated[tuple[LinkRequest, ...], msgspec.Meta(max_length=10)] = ()

    @property
    def message(self) -> Message:
        links = tuple(Link(link.label, link.url, link.about) for link in self.links)
        return Message(
            self.key, self.kind, self.to, self.address, self.claim_id, self.subject, self.text, links
        )


class PageRequest(msgspec.Struct, frozen=True):
    kind: Kind | None = None
    claim: str | None = None
    q: str = ""
    show: int | None = None

    @property
    def search(self) -> Search:
        return Search(self.kind, self.claim, self.q.strip())


def make(home: Path) -> Starlette:
    """The post with its mailbox and its switch in a folder."""
    post = Post(Mailbox(home / "post.db"), Switch("post", home))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        post.mailbox.close()

    return Starlette(routes=post.routes(), lifespan=lifespan)


@dataclass(frozen=True)
class Post:
    mailbox: Mailbox
    switch: Switch

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/messages", self.switch.over(self.send), methods=["POST"]),
            Route("/messages", self.list_messages),
            Route("/claims/{claim_id}", self.switch.over(self.erase), methods=["DELETE"]),
            Route("/counters", self.count),
            Route("/", self.page),
            Route("/open/{number:int}/{link:int}", self.follow),
            STATIC,
            *self.switch.routes(),
        ]

    async def erase(self, request: Request) -> Response:
        """Empty the messages of one claim."""
        erased = await asyncio.to_thread(self.mailbox.erase, request.path_params["claim_id"])
        return JSONResponse({"erased": erased})

    async def send(self, request: Request) -> Response:
        """Deliver a message once for its key."""
        try:
            message = msgspec.json.decode(await request.body(), type=MessageRequest).message
        except msgspec.DecodeError as error:
            return problem(400, f"not a message: {error}")
        if NOWHERE in message.address or self.switch.read().mode == "refuse":
            await asyncio.to_thread(self.mailbox.refuse, message)
            return JSONResponse({"refusal": "there is no such mailbox", "key": message.key}, 422)
        arrived = await asyncio.to_thread(self.mailbox.deliver, message)
        shown = {"key": message.key, "number": arrived.number, "tries": arrived.tries}
        return JSONResponse(shown, 201 if arrived.tries == 1 else 200)

    async def list_messages(self, request: Request) -> Response:
        """Messages as JSON, the newest first."""
        try:
            asked = _asked(request)
        except msgspec.ValidationError as error:
            return problem(400, f"not a search: {error}")
        found = await asyncio.to_thread(self.mailbox.messages, asked.search, IN_A_LIST)
        return JSONResponse({"messages": [_listed(each) for each in found]})

    async def count(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self.mailbox.counters))

    async def page(self, request: Request) -> Response:
        """The page for people: a list, and one message as it was received."""
        try:
            asked = _asked(request)
        except msgspec.ValidationError:
            asked = PageRequest()
        found = await asyncio.to_thread(self.mailbox.messages, asked.search, ON_A_PAGE)
        chosen = await asyncio.to_thread(self.mailbox.find, asked.show) if asked.show else None
        chosen = chosen or next(iter(found), None)
        of_claim = Search(claim=chosen.message.claim_id, kind="text") if chosen else Search(claim="")
        texts = await asyncio.to_thread(self.mailbox.messages, of_claim, ON_A_PAGE)
        return page(
            "post.html",
            asked=asked,
            counters=await asyncio.to_thread(self.mailbox.counters),
            found=found,
            chosen=chosen,
            texts=[text for text in reversed(texts) if text != chosen],
        )

    async def follow(self, request: Request) -> Response:
        """Follow a link in a message, and count it."""
        number, which = request.path_params["number"], request.path_params["link"]
        link = await asyncio.to_thread(self.mailbox.open, number, which)
        if link is None:
            return problem(404, "there is no such link")
        return RedirectResponse(link.url, 303, headers=HEADERS)


def _asked(request: Request) -> PageRequest:
    """What the address asks for. An empty field of a form is none."""
    given = {name: value for name, value in request.query_params.items() if value}
    return msgspec.convert(given, PageRequest, strict=False)


def _listed(arrived: Arrived) -> dict[str, Any]:
    message: dict[str, Any] = msgspec.to_builtins(arrived.message)
    return message | {"number": arrived.number, "at": arrived.at.isoformat(), "tries": arrived.tries}
