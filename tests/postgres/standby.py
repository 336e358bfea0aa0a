"""A standby of a server: it follows, and takes its place when it is promoted."""

from __future__ import annotations

import time

from tests.postgres.servers import Server, free_port


class Standby(Server):
    """Follows `primary`, which must be running; once it has caught up, no commit is acknowledged that it lacks."""

    def __init__(self, primary: Server) -> None:
        super().__init__(primary.version)
        self.primary = primary

    def _initialise(self) -> None:
        self.port = free_port()
        source = ["-h", "127.0.0.1", "-p", str(self.primary.port), "-U", "postgres"]
        self._run(
            "pg_basebackup", *source, "-D", str(self._data), "-R", "-X", "stream", "-c", "fast", "--no-sync"
        )
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.write(f"\nport = '{self.port}'\n")

    def start(self) -> None:
        super().start()
        self.primary.sql("alter system set synchronous_standby_names = '*'")
        self.primary.sql("select pg_reload_conf()")
        deadline = time.monotonic() + 30
        while not self._is_waited_for():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the primary does not wait for its standby: {self.logs()[-2_000:]}")
            time.sleep(0.02)

    def _is_waited_for(self) -> bool:
        """Whether the primary knows that it must, and this one has caught up: both take a moment."""
        told = self.primary.sql(
            "select current_setting('synchronous_standby_names'), sync_state from pg_stat_replication"
        )
        return ["*", "sync"] in told

    def promote(self) -> None:
        """Take the primary's place, which is gone. It waits for nobody behind it."""
        self._control("promote", "-w")
        self.sql("alter system reset synchronous_standby_names")
        self.sql("select pg_reload_conf()")
