"""What the machine does meanwhile: CPU and memory of a process and its children, and of everybody else. Linux."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HZ = os.sysconf("SC_CLK_TCK")
QUIET = 0.2  # cores that others may use
_OF_CHILDREN = (13, 14)  # fields of stat, counted from the state: cutime, cstime
_OF_ITSELF = (11, 12)  # utime, stime
_PROC = Path("/proc")


@dataclass
class Used:
    """What a stretch of time has cost."""

    seconds: float
    cpu: float  # of the engine's processes
    foreign_cores: float  # of everything else on this machine, on average

    def as_row(self) -> dict[str, float]:
        return {"cpu_s": round(self.cpu, 3), "foreign_cores": round(self.foreign_cores, 2)}


class Meter:
    """Measures from its creation to `stop`. The harness itself is not counted."""

    def __init__(self, *roots: int) -> None:
        self._roots = roots
        self._begun = time.perf_counter()
        self._before = self._now()

    def stop(self) -> Used:
        everybody, engine, own = (
            after - before for after, before in zip(self._now(), self._before, strict=True)
        )
        seconds = time.perf_counter() - self._begun
        return Used(seconds, engine, max(0.0, everybody - engine - own) / max(seconds, 1e-3))

    def _now(self) -> tuple[float, float, float]:
        engine = sum(map(cpu_of_tree, self._roots))
        return _cpu_of_machine(), engine, time.process_time()


def wait_until_quiet(roots: Sequence[int], patience: float) -> bool:
    """Wait until other programs use at most `QUIET` cores; returns whether they did in time."""
    until = time.monotonic() + patience
    while True:
        meter = Meter(*roots)
        time.sleep(0.6)
        if meter.stop().foreign_cores < QUIET:
            return True
        if time.monotonic() > until:
            return False


@contextmanager
def ahead_of_others(roots: Sequence[int], level: int = -15) -> Iterator[None]:
    """Have these processes and their descendants scheduled before others meanwhile, on a machine that is shared.

    Linux shares the CPU among sessions first, so it is these that are raised. Needs root; without it nothing happens.
    """
    _schedule(roots, level)
    try:
        yield
    finally:
        _schedule(roots, 0)


def _schedule(roots: Sequence[int], level: int) -> None:
    for root in roots:
        for pid in _tree(root):
            with suppress(OSError):
                (_PROC / str(pid) / "autogroup").write_text(str(level))


def cpu_of_tree(root: int) -> float:
    """Seconds of CPU of a process, its descendants, and those of its children that are gone."""
    ticks = 0
    for pid, fields in _tree(root).items():
        ticks += sum(int(fields[no]) for no in _OF_ITSELF)
        if pid == root:
            ticks += sum(int(fields[no]) for no in _OF_CHILDREN)
    return ticks / HZ


def memory_of_tree(root: int) -> float:
    """KiB of a process and its descendants; what several share is divided among them (PSS)."""
    return sum(_pss(pid) for pid in _tree(root))


def facts(folder: Path) -> dict[str, Any]:
    """What a reader has to know to judge the figures; nothing that tells where they come from."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory),
        "cpu": _cpu_model(),
        "kernel": platform.release(),
        "file_system": _file_system(folder),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _tree(root: int) -> dict[int, list[str]]:
    stats: dict[int, list[str]] = {}
    children: dict[int, list[int]] = {}
    for entry in os.listdir(_PROC):
        if entry.isdigit() and (fields := _stat(int(entry))):
            stats[int(entry)] = fields
            children.setdefault(int(fields[1]), []).append(int(entry))
    found: dict[int, list[str]] = {}
    left = [root]
    while left:
        pid = left.pop()
        if pid in stats and pid not in found:
            found[pid] = stats[pid]
            left += children.get(pid, [])
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/pid/stat from the state on; [] when the process is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def _pss(pid: int) -> float:
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1])
    except OSError:
        pass
    return 0.0


def _cpu_of_machine() -> float:
    """Seconds of CPU used by all; idle, waiting for the disk and stolen time are not."""
    user, nice, system, _idle, _wait, irq, soft = (_PROC / "stat").read_text().split()[1:8]
    return sum(map(int, (user, nice, system, irq, soft))) / HZ


def _cpu_model() -> str:
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """The type of the file system that holds the data: figures from a tmpfs would mean nothing."""
    best, found = "", "unknown"
    for line in (_PROC / "mounts").read_text().splitlines():
        _, place, kind = line.split()[:3]
        if len(place) >= len(best) and folder.resolve().is_relative_to(place):
            best, found = place, kind
    return found
