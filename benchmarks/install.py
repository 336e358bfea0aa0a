"""Install the peers by name, from PyPI and npm, each in an environment of its own outside the repository.

    python -m benchmarks.install dbos restate

They go to ~/.cache/perdure-bench, or where PERDURE_BENCH_CACHE says. Restate needs npm, for its server.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

PYTHON_PACKAGES = {
    "dbos": ["dbos==3.4.0"],
    "restate": ["restate-sdk[serde]==1.3.0", "granian==2.8.7", "uvloop", "aiohttp"],
}
NPM_PACKAGES = {"restate": ["@restatedev/restate-server@1.7.12"]}


def cache_folder() -> Path:
    """Where peers and data are kept."""
    chosen = os.environ.get("PERDURE_BENCH_CACHE")
    return Path(chosen).expanduser().resolve() if chosen else Path.home() / ".cache" / "perdure-bench"


def install(peer: str, *, newest: bool = False) -> None:
    """Make the environment, or bring it up to date."""
    folder = cache_folder() / peer
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        _run(sys.executable, "-m", "venv", str(folder / "venv"))
    _run(str(python), "-m", "pip", "install", "--quiet", *_named(PYTHON_PACKAGES[peer], newest, "=="))
    if peer in NPM_PACKAGES:
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit(f"{peer} needs npm, which is not here: install Node.js first")
        packages = _named(NPM_PACKAGES[peer], newest, "@")
        _run(npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *packages)


def _named(packages: list[str], newest: bool, mark: str) -> list[str]:
    if not newest:
        return packages
    unpinned = [
        package[: package.rindex(mark)] if package.rfind(mark) > 0 else package for package in packages
    ]
    return ["--upgrade", *unpinned] if mark == "==" else [f"{package}@latest" for package in unpinned]


def _run(*command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, check=True, env=environment)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m benchmarks.install", description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="+", choices=sorted(PYTHON_PACKAGES))
    parser.add_argument("--newest", action="store_true", help="today's versions instead of the known ones")
    chosen = parser.parse_args()
    for peer in chosen.peers:
        install(peer, newest=chosen.newest)
        print(f"{peer} is installed")


if __name__ == "__main__":
    main()
