"""The alerts in deploy/prometheus: promtool reads them, tries each of them, and what they say to do can be done."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from perdure.cli.main import root
from tests.docs.markdown import blocks_of
from tests.docs.shell import ROOT

PAGE = ROOT / "docs" / "how-to" / "monitor.md"
FOLDER = ROOT / "deploy" / "prometheus"
[GROUP] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
ALERTS: list[dict[str, Any]] = GROUP["rules"]
DOCUMENTATION = "https://github.com/perdure/perdure/blob/main/docs/how-to/monitor.md#"
COMMAND = get_command(root)


def promtool(*arguments: str, folder: Path = FOLDER) -> str:
    """What promtool says; it has to agree."""
    done = subprocess.run(
        ["promtool", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_promtool_understands_the_rules_and_the_configuration() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yml")
    assert "is valid prometheus config" in promtool("check", "config", "prometheus.yml")


def test_promtool_understands_what_the_page_configures(tmp_path: Path) -> None:
    blocks = [block for block in blocks_of(PAGE) if "scrape_configs" in block.code]
    assert len(blocks) > 2
    for block in blocks:
        (tmp_path / "prometheus.yml").write_text(block.code)
        promtool("check", "config", "--syntax-only", "prometheus.yml", folder=tmp_path)


def test_each_alert_fires_when_it_should_and_says_what_is_written() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts-test.yml")


@pytest.mark.parametrize("expression", ["vector(1)", "absent(vector(1))"], ids=["always", "never"])
def test_alerts_that_always_or_never_fire_are_noticed(expression: str, tmp_path: Path) -> None:
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    for alert in rules["groups"][0]["rules"]:
        alert["expr"] = expression
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    (tmp_path / "alerts-test.yml").write_text((FOLDER / "alerts-test.yml").read_text())
    with pytest.raises(AssertionError, match="FAILED") as found:
        promtool("test", "rules", "alerts-test.yml", folder=tmp_path)
    assert {alert["alert"] for alert in ALERTS} == set(re.findall(r"alertname: ?(\w+)", str(found.value)))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_to_do(alert: dict[str, Any]) -> None:
    said = alert["annotations"]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert said["summary"] and len(said["description"]) > 100
    assert said["runbook_url"] == DOCUMENTATION + alert["alert"].lower()
    for command in re.findall(r"`(perdure [^`]+)`", said["description"]):
        understands(command)


def understands(command: str) -> None:
    """perdure has this command with these options. Raises what a wrong one raises."""
    _, *words = command.replace(" ID", " c-1").split()
    outer = COMMAND.make_context("perdure", [*words])
    name, chosen, rest = COMMAND.resolve_command(outer, [*words])  # type: ignore[attr-defined]
    chosen.make_context(name, rest, parent=outer)
