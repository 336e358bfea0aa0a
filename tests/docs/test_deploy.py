"""What `deploy/` tells perdure is what perdure understands. There is no engine of containers here, and no cluster."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from perdure.cli.main import root
from perdure.http.host import HEALTH
from perdure.server.supervision import ALLOWANCE
from perdure.settings import TABLE, choose, strangers
from tests.docs.shell import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
WORKLOADS = ("Deployment", "Job")
COMMAND = get_command(root)
_VARIABLE = re.compile(r"\$\{\w+:\?[^}]*\}")


@dataclass(frozen=True)
class Container:
    """What of perdure runs somewhere, and what it is told."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    grace: float  # seconds that it has to stop
    probes: tuple[str, ...] = ()

    def given(self) -> dict[str, Any]:
        """What its command line says, as perdure reads it. Raises what a wrong one raises."""
        outer = COMMAND.make_context("perdure", [*self.arguments])
        name, chosen, rest = COMMAND.resolve_command(outer, [*self.arguments])  # type: ignore[attr-defined]
        return dict(chosen.make_context(name, rest, parent=outer).params)


@cache
def settings_of(name: str) -> dict[str, Any]:
    """The settings of a container: flags before variables. Raises what a wrong value raises."""
    [container] = [one for one in CONTAINERS if one.name == name]
    said = container.given()
    flags = {row.name: said.get(row.name) for row in TABLE} if container in SERVING else {}
    return {key: one.value for key, one in choose(TABLE, flags, environment=container.environment).items()}


def documents() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        yield from filter(None, yaml.safe_load_all(path.read_text()))


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [one for one in documents() if one["kind"] in kinds]


def composed() -> Iterator[Container]:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        if name != "database":
            environment = {k: _VARIABLE.sub("x" * 24, v) for k, v in service["environment"].items()}
            assert service["stop_grace_period"] == "1m"
            yield Container(f"compose:{name}", service["command"], environment, 60)


def scheduled() -> Iterator[Container]:
    secrets = {one["metadata"]["name"]: one["stringData"] for one in of_kind("Secret")}
    for document in of_kind(*WORKLOADS):
        pod = document["spec"]["template"]["spec"]
        [container] = pod["containers"]
        environment = {pair["name"]: pair["value"] for pair in container.get("env", ())}
        for source in container["envFrom"]:
            environment |= secrets[source["secretRef"]["name"]]
        probes = (container[name] for name in container if name.endswith("Probe"))
        yield Container(
            f"kubernetes:{document['metadata']['name']}",
            container["args"],
            environment,
            pod.get("terminationGracePeriodSeconds", 30),
            tuple(probe["httpGet"]["path"] for probe in probes),
        )


CONTAINERS = [*composed(), *scheduled()]
SERVING = [one for one in CONTAINERS if one.arguments[0] == "run"]


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda one: one.name)
def test_perdure_understands_its_command_line_and_its_variables(container: Container) -> None:
    assert strangers(container.environment) == {}
    assert settings_of(container.name)["store"].startswith("postgresql://")


@pytest.mark.parametrize("container", SERVING, ids=lambda one: one.name)
def test_it_has_time_to_drain(container: Container) -> None:
    drain = settings_of(container.name)["drain"]
    assert 0 < drain < container.grace - ALLOWANCE - 5


@pytest.mark.parametrize("container", SERVING, ids=lambda one: one.name)
def test_only_those_that_listen_are_probed_and_where_there_is_something(container: Container) -> None:
    assert set(container.probes) <= {row.path for row in HEALTH}
    assert not (container.probes and settings_of(container.name)["role"] == "worker")


def test_those_that_work_are_supervised_and_a_pool_is_served() -> None:
    working = [settings_of(one.name) for one in SERVING if settings_of(one.name)["role"] != "api"]
    assert {one["workers"] for one in working} == {1}
    assert ["gpu"] in [list(one["pool"]) for one in working]


def test_pods_are_of_the_deployment_and_the_service_leads_to_the_api() -> None:
    labels = {
        one["metadata"]["name"]: one["spec"]["template"].get("metadata", {}).get("labels", {})
        for one in of_kind(*WORKLOADS)
    }
    for one in of_kind("Deployment"):
        assert one["spec"]["selector"]["matchLabels"] == labels[one["metadata"]["name"]]
    [service] = of_kind("Service")
    chosen = [name for name, own in labels.items() if service["spec"]["selector"].items() <= own.items()]
    assert chosen == ["perdure-api"]


def test_the_image_has_what_the_package_is_built_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *wheel["force-include"],
        *(str(Path(package).parent) for package in wheel["packages"]),
    }
    copied = {
        word
        for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
        if "$" not in word
    }
    admitted = {
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert needed <= copied <= admitted
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_serves_an_application_that_is_there_on_the_usual_port() -> None:
    [application] = re.findall(r"^ARG APP=(.*)$", DOCKERFILE, re.MULTILINE)
    assert (ROOT / application).is_file()
    [port] = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)
    assert int(port) == next(row.default for row in TABLE if row.name == "port")
    assert {
        int(p["containerPort"])
        for d in of_kind("Deployment")
        for p in d["spec"]["template"]["spec"]["containers"][0]["ports"]
    } == {int(port)}
