"""A real Prometheus on loopback, with its data in a folder of the test's; it ends with the block."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.brokers.servers import Server, serving
from tests.postgres.servers import free_port

WITHIN = 60.0  # seconds until something that is asked for has been scraped, on a machine that is busy
INTERVAL = "2s"  # a scrape that takes longer fails


@dataclass(frozen=True)
class Target:
    """What is scraped under the name of a job."""

    address: str  # http://host:port
    key: str = ""

    def scraped(self, job: str) -> dict[str, Any]:
        """Its part of Prometheus' configuration."""
        given = {"authorization": {"credentials": self.key}} if self.key else {}
        host = self.address.removeprefix("http://")
        return {"job_name": job, "static_configs": [{"targets": [host]}], **given}


@dataclass(frozen=True)
class Series:
    """One element of an answer: its labels and its value."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """Asks a Prometheus that runs."""

    def __init__(self, url: str) -> None:
        self._http = httpx2.Client(base_url=f"{url}/api/v1", trust_env=False, timeout=WITHIN)

    def ask(self, expression: str) -> list[Series]:
        """What an expression gives now. Raises AssertionError with Prometheus' message if it gives an error."""
        found = self._get("query", query=expression)
        assert found["resultType"] == "vector", expression
        return [Series(one["metric"], float(one["value"][1])) for one in found["result"]]

    def values_of(self, label: str, selector: str) -> list[str]:
        """What Grafana's `label_values(selector, label)` gives."""
        found: list[str] = self._get(f"label/{label}/values", **{"match[]": selector})
        return found

    def exemplars(self, expression: str) -> list[dict[str, Any]]:
        """The exemplars of the last hour of the series in an expression."""
        now = time.time()
        found = self._get("query_exemplars", query=expression, start=str(now - 3_600), end=str(now + 60))
        return [exemplar for series in found for exemplar in series["exemplars"]]

    def rules(self) -> dict[str, dict[str, Any]]:
        """The rules, by name, as Prometheus has evaluated them."""
        [group] = self._get("rules")["groups"]
        return {rule["name"]: rule for rule in group["rules"]}

    def wait_for(self, expression: str, holds: Callable[[list[Series]], bool] = bool) -> list[Series]:
        """Ask until the answer is as wanted; by default, until there is one."""
        until = time.monotonic() + WITHIN
        while not holds(found := self.ask(expression)):
            assert time.monotonic() < until, f"after {WITHIN:g} s, {expression} gives {found}"
            time.sleep(0.05)
        return found

    def _get(self, path: str, **parameters: str) -> Any:
        answer = self._http.get(path, params=parameters).json()
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        return answer["data"]

    def close(self) -> None:
        self._http.close()


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, Target], rules: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes these targets and evaluates these rules."""
    configuration = folder / "prometheus.yml"
    said = {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [target.scraped(job) for job, target in targets.items()],
    }
    configuration.write_text(yaml.safe_dump(said))
    with serving(server(configuration, folder)) as running:
        await_readiness(running.url)
        asking = Prometheus(running.url)
        try:
            yield asking
        finally:
            asking.close()


def server(configuration: Path, folder: Path) -> Server:
    """A Prometheus on a port of its own, to be started; it writes into this folder."""
    if shutil.which("prometheus") is None:
        raise RuntimeError(
            "prometheus is missing: run `make prometheus` (as root), or `make test` which does"
        )
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--scrape.discovery-reload-interval=100ms",  # else the first scrape comes after 5 s
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    return Server(f"http://127.0.0.1:{port}", command, port, folder)


def await_readiness(url: str) -> None:
    """Wait until it answers queries; it listens before it can."""
    until = time.monotonic() + WITHIN
    while httpx2.get(f"{url}/-/ready", trust_env=False, timeout=WITHIN).status_code != 200:
        assert time.monotonic() < until, f"Prometheus was not ready within {WITHIN:g} s"
        time.sleep(0.05)
