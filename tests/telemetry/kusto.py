"""What a Kusto query reads: its tables, its columns, and the fields of its dynamic columns. Not an engine."""

from __future__ import annotations

import re
from dataclasses import dataclass

TABLES = ("requests", "dependencies", "exceptions", "traces", "customEvents", "customMetrics")
_FIELD = re.compile(r'(customDimensions|customMeasurements)(?:\["([^"]+)"\]|\.(\w+))')
_TEXT = re.compile(r'"[^"\n]*"')
_WORD = re.compile(r"[A-Za-z_]\w*")
_WORDS = frozenset(
    (
        *(
            "let",
            "where",
            "extend",
            "summarize",
            "project",
            "order",
            "by",
            "asc",
            "desc",
            "union",
            "join",
            "kind",
        ),
        *(
            "leftouter",
            "on",
            "distinct",
            "in",
            "and",
            "or",
            "not",
            "ago",
            "bin",
            "count",
            "countif",
            "percentile",
        ),
        *(
            "sum",
            "max",
            "min",
            "dcount",
            "take_any",
            "arg_max",
            "strcat",
            "iff",
            "case",
            "coalesce",
            "isempty",
        ),
        *(
            "isnotempty",
            "tostring",
            "todouble",
            "tolong",
            "tobool",
            "tolower",
            "startswith",
            "endswith",
            "has",
        ),
        *("true", "false"),
    )
)
"""The words of the language that the queries use."""
_DURATION = re.compile(r"\b\d+[smhd]\b")


@dataclass(frozen=True)
class Query:
    """`fields` are those of dynamic columns, `columns` the others that the tables have to have."""

    text: str
    tables: frozenset[str]
    fields: frozenset[tuple[str, str]]
    columns: frozenset[str]
    names: frozenset[str]


def read(text: str) -> Query:
    """Read a query. Columns that it defines itself, and names of its `let` statements, are not in the result."""
    code = "\n".join(line.partition("//")[0] for line in text.splitlines())
    fields = frozenset((kind, first or second) for kind, first, second in _FIELD.findall(code))
    names = frozenset(re.findall(r'name == "([^"]+)"', code))
    plain = _DURATION.sub(" ", _TEXT.sub(" ", _FIELD.sub(lambda found: found[1], code)))
    words = set(_WORD.findall(plain))
    own = set(re.findall(r"(?:\blet\s+)?\b([A-Za-z_]\w*)\s*=(?![=~])", plain))
    tables = frozenset(words & set(TABLES))
    return Query(code, tables, fields, frozenset(words - own - _WORDS - tables), names)
