"""The command line: `perdure run` serves an application, the other verbs ask about and manage instances."""

import sys

_HINT = """\
The command line and the server need the `server` extra, and {missing!r} is not installed.
Install it with:

    pip install 'perdure[server]'
"""


def main() -> None:
    """The `perdure` command."""
    try:
        from perdure.cli.root import root
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "perdure":
            raise
        print(_HINT.format(missing=missing), file=sys.stderr)
        raise SystemExit(4) from None
    root(prog_name="perdure")
