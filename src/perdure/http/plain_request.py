"""Requests with cheap access to headers and query: headers are indexed, an empty query is not parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request

if TYPE_CHECKING:
    from starlette.types import Scope

_HEADERS: Final = "perdure.headers"
"""The key in a request's scope for its indexed headers, which all request objects of the scope share."""
_NO_QUERY: Final = QueryParams()


class IndexedHeaders(Headers):
    """The headers of a request, indexed by name. Starlette searches the list at each access."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        self._first = dict(reversed(self._list))
        self._repeats = len(self._first) < len(self._list)

    def getlist(self, key: str) -> list[str]:
        if self._repeats:
            return super().getlist(key)
        found = self._first.get(key.lower().encode("latin-1"))
        return [found.decode("latin-1")] if found is not None else []

    def get(self, key: str, default: Any = None) -> Any:
        found = self._first.get(key.lower().encode("latin-1"))
        return found.decode("latin-1") if found is not None else default

    def __getitem__(self, key: str) -> str:
        found = self._first.get(key.lower().encode("latin-1"))
        if found is None:
            raise KeyError(key)
        return found.decode("latin-1")

    def __contains__(self, key: Any) -> bool:
        return key.lower().encode("latin-1") in self._first

    def is_of(self, scope: Scope) -> bool:
        """Whether the scope still has these headers."""
        return self._list is scope["headers"]


class PlainRequest(Request):
    """A request whose headers are indexed once, and whose query is parsed only if there is one."""

    _indexed: IndexedHeaders | None = None

    @property
    def headers(self) -> Headers:
        found = self._indexed
        if found is None:
            found = self.scope.get(_HEADERS)
            if found is None or not found.is_of(self.scope):
                found = self.scope[_HEADERS] = IndexedHeaders(self.scope)
            self._indexed = found
        return found

    @property
    def query_params(self) -> QueryParams:
        return super().query_params if self.scope["query_string"] else _NO_QUERY


__all__ = ["IndexedHeaders", "PlainRequest"]
