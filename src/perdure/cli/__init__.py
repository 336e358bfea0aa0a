"""The command line: `perdure run` serves an application; the other commands query and manage instances."""

import sys

from perdure.error_numbers import note_of
from perdure.errors import ExtraMissing, needing


def main() -> None:
    """The `perdure` command."""
    try:
        with needing("server", "the command line"):
            from perdure.cli.main import root
    except ExtraMissing as error:
        print(f"error: {error}\n{note_of(error.code)}", file=sys.stderr)
        raise SystemExit(4) from None
    root(prog_name="perdure")
