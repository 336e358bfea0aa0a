"""The command line: `perdure run` serves an application, the other verbs ask about and manage instances."""

import sys

from perdure.errors import ExtraMissing, needing
from perdure.numbers import note_of


def main() -> None:
    """The `perdure` command."""
    try:
        with needing("server", "the command line"):
            from perdure.cli.root import root
    except ExtraMissing as error:
        print(f"error: {error}\n{note_of(error.code)}", file=sys.stderr)
        raise SystemExit(4) from None
    root(prog_name="perdure")
