"""Requests as the routes see them: what most requests do not have, or ask for several times, costs little."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request

if TYPE_CHECKING:
    from starlette.types import Scope

_HEADERS: Final = "perdure.headers"
"""The key in a request's scope under which its headers are kept for every request object that is made from it."""
_NO_QUERY: Final = QueryParams()


class IndexedHeaders(Headers):
    """The headers of a request, found by name. Starlette goes through the list at each question."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        self._by_name: dict[bytes, list[bytes]] = {}
        for name, value in self._list:
            self._by_name.setdefault(name, []).append(value)

    def getlist(self, key: str) -> list[str]:
        found = self._by_name.get(key.lower().encode("latin-1"))
        return [value.decode("latin-1") for value in found] if found is not None else []

    def get(self, key: str, default: Any = None) -> Any:
        found = self._by_name.get(key.lower().encode("latin-1"))
        return found[0].decode("latin-1") if found is not None else default

    def __getitem__(self, key: str) -> str:
        found = self._by_name.get(key.lower().encode("latin-1"))
        if found is None:
            raise KeyError(key)
        return found[0].decode("latin-1")

    def __contains__(self, key: Any) -> bool:
        return key.lower().encode("latin-1") in self._by_name

    def is_of(self, scope: Scope) -> bool:
        """Whether these are still the headers of the scope."""
        return self._list is scope["headers"]


class PlainRequest(Request):
    """A request whose headers are indexed once, and whose query is parsed only where there is one."""

    @property
    def headers(self) -> Headers:
        scope = self.scope
        found: IndexedHeaders | None = scope.get(_HEADERS)
        if found is None or not found.is_of(scope):
            found = scope[_HEADERS] = IndexedHeaders(scope)
        return found

    @property
    def query_params(self) -> QueryParams:
        return super().query_params if self.scope["query_string"] else _NO_QUERY


__all__ = ["IndexedHeaders", "PlainRequest"]
