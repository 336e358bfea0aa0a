"""Import time of perdure beside asyncio, and installed size: `python -m benchmarks.footprint`.

Each import runs in a fresh process, interleaved, and the CPU time of the process counts. The size is what pip has
installed: perdure and the packages that it needs without an extra, compiled files left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path
from statistics import median

from benchmarks.report import table

IMPORTS = {"an empty interpreter": "pass", "asyncio": "import asyncio", "perdure": "import perdure"}
MEASURED = """
import json, resource
{}
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([(used.ru_utime + used.ru_stime) * 1e3, used.ru_maxrss / 1024]))
"""


def measure(statement: str) -> tuple[float, float]:
    """CPU time in milliseconds and the largest memory in MB of a process that runs the statement."""
    told = subprocess.run(
        [sys.executable, "-c", MEASURED.format(statement)], capture_output=True, text=True, check=True
    )
    milliseconds, megabytes = json.loads(told.stdout)
    return milliseconds, megabytes


def imports(repetitions: int) -> list[list[str]]:
    runs = {name: [measure(statement)] for name, statement in IMPORTS.items()}  # warms the disk's cache
    for _ in range(repetitions):
        for name, statement in IMPORTS.items():
            runs[name].append(measure(statement))
    return [
        [name, f"{median(ms for ms, _ in row[1:]):.0f}", f"{median(mb for _, mb in row[1:]):.0f}"]
        for name, row in runs.items()
    ]


def sizes() -> list[list[str]]:
    """Every package that a bare installation has, with its size in MB."""
    needed = [one.split(">")[0] for one in metadata.requires("perdure") or () if ";" not in one]
    return [[name, f"{megabytes(name):.1f}"] for name in ["perdure", *needed]]


def megabytes(distribution: str) -> float:
    spec = util.find_spec(distribution)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None:
        return 0.0
    return sum(path.stat().st_size for path in folder.rglob("*") if _counts(path)) / 1e6


def _counts(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=15)
    arguments = parser.parse_args()

    print(table(["import", "CPU, ms", "memory, MB"], imports(arguments.repetitions)))
    print(table(["package", "MB"], sizes()))


if __name__ == "__main__":
    main()
