"""Count the circles of imports: modules that import each other, directly or through others.

usage: python deploy/circles.py

Imports under `if TYPE_CHECKING` and inside functions count too. Each circle is printed with the imports that tie it;
the last line is their number. The exit code is 1 if there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

import grimp

PACKAGES = ("perdure", "simulation", "powercuts", "reliability", "benchmarks")


def main() -> int:
    sys.path[:0] = [".", "src"]
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    circles = list(circles_of(imports))
    for circle in circles:
        print(f"{len(circle)} modules:")
        for module in sorted(circle):
            print(f"  {module} -> {', '.join(sorted(imports[module] & circle))}")
    print(f"{len(circles)} circles")
    return 1 if circles else 0


def circles_of(imports: Mapping[str, set[str]]) -> Iterator[set[str]]:
    """The largest sets of modules each of which reaches every other one."""
    left = {module: set(imported) for module, imported in imports.items()}
    while (met := _one_circle(left)) is not None:
        circle = _reached(left, met) & _reached(_reversed(left), met)
        yield circle
        left = {module: imported - circle for module, imported in left.items() if module not in circle}


def _one_circle(imports: Mapping[str, set[str]]) -> str | None:
    """A module of some circle; None if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return str(error.args[1][0])
    return None


def _reached(imports: Mapping[str, set[str]], begin: str) -> set[str]:
    reached, to_see = {begin}, [begin]
    while to_see:
        new = imports[to_see.pop()] - reached
        reached |= new
        to_see += new
    return reached


def _reversed(imports: Mapping[str, set[str]]) -> dict[str, set[str]]:
    importers: dict[str, set[str]] = {module: set() for module in imports}
    for module, imported in imports.items():
        for one in imported:
            importers[one].add(module)
    return importers


if __name__ == "__main__":
    raise SystemExit(main())
