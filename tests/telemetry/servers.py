"""`perdure run` for the tests of telemetry."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOKEN = "the-token-of-these-very-tests"
ENDS_WITHIN = 60.0  # seconds, on a machine that is busy


class Served:
    """A server, and what it has printed. A thread reads that: the server must not wait for a full pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        self.address = ""
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            found = re.search(r"pages +(http://\S+)/", line)
            if found:
                self.address = found[1]
                self._is_ready.set()
        self._is_ready.set()

    def await_ready(self) -> None:
        self._is_ready.wait(ENDS_WITHIN)
        assert self.address, self.said

    def stop(self) -> None:
        """Stop it as an operator would, and keep the rest of what it prints."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(ENDS_WITHIN)
        self._reader.join(ENDS_WITHIN)


@contextmanager
def served(folder: Path, app: Path, environment: Mapping[str, str], *options: str) -> Iterator[Served]:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "perdure.cli", "run", os.fspath(app), "--port", "0", *options],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([os.fspath(ROOT / "src"), os.fspath(ROOT)]),
            "PERDURE_TOKEN": TOKEN,
            "COLUMNS": "200",
            "TMPDIR": os.fspath(folder),
            **environment,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    found = Served(process)
    try:
        found.await_ready()
        yield found
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        found._reader.join(ENDS_WITHIN)
        assert process.stderr is not None
        process.stderr.close()
