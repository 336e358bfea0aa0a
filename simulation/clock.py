"""Clocks: the world's own time, and the hub's clock, which drifts and is set."""

from __future__ import annotations

from perdure.engine.clock import SharedClock

BEGINNING = 1_800_000_000_000_000  # microseconds since 1970


class WorldClock:
    """The hub's `Clock`. `true` is the world's time, which only the world moves."""

    def __init__(self, drift: float, creeping: float) -> None:
        self.true = 0
        self.offset = 0
        self._drift = drift
        self._creeping = creeping
        self._crept = 0.0

    def now(self) -> int:
        return BEGINNING + self.true + int(self.true * self._drift) + self.offset

    def monotonic(self) -> float:
        """Time passes while it is measured, if the plan says so: that is what cuts batches by time."""
        self._crept += self._creeping
        return 1.0 + self.true / 1e6 + self._crept

    def until(self, hub_time: int) -> int:
        """How much of the world's time passes until the hub's clock shows `hub_time`, about."""
        return max(0, int((hub_time - self.now()) / (1 + self._drift)) + 1)

    def heal(self) -> None:
        """The clock runs at the right speed from here on, from its current time."""
        self.offset += int(self.true * self._drift)
        self._drift = 0.0
        self._creeping = 0.0


class WorkerClock(SharedClock):
    """The clock of one worker among several: the database's time as last heard, and on by a quartz of its own."""

    def __init__(self, database: WorldClock, drift: float) -> None:
        super().__init__()
        self._database = database
        self._drift = drift
        self._drifted = 0.0  # seconds, until it was set right

    def monotonic(self) -> float:
        true = self._database.true / 1e6
        return 1.0 + self._drifted + true * (1 + self._drift)

    def now(self) -> int:
        return super().now() if self._heard else self._database.now()

    def until(self, hub_time: int) -> int:
        """How much of the world's time passes until this clock shows `hub_time`, about."""
        return max(0, int((hub_time - self.now()) / (1 + self._drift)) + 1)

    def heal(self) -> None:
        self._drifted += self._database.true / 1e6 * self._drift
        self._drift = 0.0
