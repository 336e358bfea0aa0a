"""Install perdure from this checkout, and check every package it needs against its hash in constraints.txt.

    python deploy/install.py server                # the extras to install
    python deploy/install.py all --group dev       # with a dependency group of pyproject.toml
    python deploy/install.py server --no-editable  # a copy, for an image
    python deploy/install.py server --built dist/perdure-0.1.0-py3-none-any.whl

pip checks hashes either for all packages or for none, and a checkout has no hash. Therefore the packages are
installed first, with `--require-hashes`, and the checkout after them, without looking at its dependencies.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "constraints.txt"
OWN = re.compile(r"perdure\[(?P<extras>[^\]]+)\]")


def main() -> None:
    parser = argparse.ArgumentParser(description="Install perdure with its locked dependencies.")
    parser.add_argument("extras", nargs="*", help="extras of pyproject.toml")
    parser.add_argument("--group", action="append", default=[], help="a dependency group of pyproject.toml")
    parser.add_argument("--no-editable", action="store_true", help="copy the package instead of linking it")
    parser.add_argument("--built", metavar="FILE", help="install this wheel or sdist instead of the checkout")
    arguments = parser.parse_args()

    # An older pip reads no hashes from constraints.
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as own:
        own.write(locked("pip"))
        own.flush()
        pip("--require-hashes", "-r", own.name)
    building = [] if (arguments.built or "").endswith(".whl") else ["build"]
    groups = [word for group in [*building, *arguments.group] for word in ("--group", group)]
    pip("--require-hashes", "-c", str(LOCK), *requirements(arguments.extras), *groups)
    editable = [] if arguments.no_editable or arguments.built else ["-e"]
    pip("--no-deps", "--no-build-isolation", *editable, arguments.built or str(ROOT))


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


def locked(package: str) -> str:
    """The lines of a package in the lock file, hashes included."""
    found = re.search(rf"^{package}==(.*\\\n)*.*\n", LOCK.read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"constraints.txt does not pin {package}: run `make constraints`")
    return found[0]


def requirements(extras: list[str]) -> list[str]:
    """What the package requires with these extras. An extra may name others of the package's own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found, waiting = list(project["dependencies"]), list(extras)
    while waiting:
        for requirement in project["optional-dependencies"][waiting.pop()]:
            own = OWN.fullmatch(requirement)
            if own:
                waiting.extend(own["extras"].split(","))
            else:
                found.append(requirement)
    return found


if __name__ == "__main__":
    main()
