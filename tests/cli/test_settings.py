"""Settings are one table: whatever way one is given, it is the same setting and the same value."""

from __future__ import annotations

import json
import typing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import perdure as df
from perdure.cli.main import root
from perdure.cli.settings import flags_of
from perdure.engine.upkeep.retention import AGES, Retention
from perdure.errors import SettingError
from perdure.model.settings import BYTES, COUNT, NAMES, NETWORKS, PORT, SECONDS, SECRET, SWITCH, Setting
from perdure.settings import (
    ENGINE,
    KEYS,
    PLACE,
    TABLE,
    EngineOverrides,
    choose,
    coded_in,
    engine_settings,
    markdown,
)

DOCS = Path(__file__).parents[2] / "docs"
SAMPLES: dict[str, tuple[str, Any]] = {
    COUNT.name: ("1_234", 1234),
    BYTES.name: ("3MiB", 3 * 1024 * 1024),
    SECONDS.name: ("2min", 120.0),
    PORT.name: ("8080", 8080),
    NETWORKS.name: ("10.0.0.0/8, ::1", ["10.0.0.0/8", "::1/128"]),
    NAMES.name: ("a.example, b.example", ["a.example", "b.example"]),
    KEYS.name: (f"k1:{'A' * 43}=", df.Encryption({"k1": bytes(32)})),
    AGES.name: ("completed=7d,failed=90d", Retention.of("completed=7d,failed=90d")),
}
STRATEGIES = {"version_match_strategy": "Strict", "version_failure_strategy": "Fail"}
TEXTS = {"store": "memory:", "hub": "claims", "host": "::1", "default_version": "2.1", **STRATEGIES}
TEXTS |= {"public_url": "https://claims.example", "access": "open"}
TEXTS |= {"azure_events": "data", "azure_links": "status", "azure_queues": "storage"}
TEXTS |= {"telemetry": "off", "trust_traceparent": "all"}
TEXTS |= {
    "worker_name": "worker-7",
    "role": "api",
    "file_access": "refuse",
    "replica_dir": "/var/cache/perdure",
}
TEXTS |= {"token": "a-token-that-is-long-enough", "admin_key": "a-key-that-is-long-enough-too"}
every_row = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


def sample(row: Setting) -> tuple[str, Any]:
    """A text that is not the default, and the value it stands for."""
    if row.unit is SWITCH:
        return str(not row.default).lower(), not row.default
    if row.name in TEXTS:
        return TEXTS[row.name], TEXTS[row.name]
    return SAMPLES[row.unit.name]


def _told(row: Setting, value: Any) -> Any:
    if row.unit is SECRET:
        return "***"
    if row.unit is KEYS:
        return "k1:***"
    return str(value) if row.unit is AGES else value


def perdure(*arguments: str) -> Any:
    return CliRunner().invoke(root, list(arguments))


def told(*arguments: str) -> dict[str, Any]:
    outcome = perdure("settings", "--json", *arguments)
    assert outcome.exit_code == 0, outcome.stderr
    answer: dict[str, Any] = json.loads(outcome.stdout)
    return answer


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in TABLE:
        monkeypatch.delenv(row.variable, raising=False)


@every_row
def test_flag_variable_and_argument_are_the_same_setting(
    row: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, value = sample(row)
    flag = flags_of({row.name: value if row.unit is SWITCH else text})
    by_flag = told(*flag)[row.name]
    monkeypatch.setenv(row.variable, text)
    by_variable = told()[row.name]
    monkeypatch.delenv(row.variable)
    by_argument = choose(TABLE, {row.name: value})[row.name]
    assert by_flag["value"] == by_variable["value"] == _told(row, value)
    assert list(by_argument.value) == value if row.unit in (NAMES, NETWORKS) else by_argument.value == value
    assert [by_flag["source"], by_variable["source"], by_argument.source] == [
        "flag",
        "environment",
        "argument",
    ]
    assert told()[row.name]["source"] == "default"
    assert value != row.default


@pytest.mark.parametrize("row", ENGINE, ids=lambda row: row.name)
async def test_what_is_given_is_what_the_engine_runs_with(
    row: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, value = sample(row)
    app = df.App("settled")
    found = []
    async with app.running("memory:", **{row.name: value}) as client:
        found.append(client.gateway.settings)
    monkeypatch.setenv(row.variable, text)
    async with app.running("memory:") as client:
        found.append(client.gateway.settings)
    for settings in found:
        chosen = coded_in(settings)
        assert {name: list(v) if isinstance(v, tuple) else v for name, v in chosen.items()} == {
            row.name: value
        }


def test_the_typed_arguments_are_the_rows_of_the_table() -> None:
    hints = typing.get_type_hints(EngineOverrides)
    assert list(hints) == [row.name for row in ENGINE]
    for row in ENGINE:
        assert row.unit.type in str(hints[row.name]).replace("<class '", ""), row.name


def test_names_flags_and_variables_are_unique_and_every_row_says_what_it_is() -> None:
    assert len({row.name for row in TABLE}) == len({row.flag for row in TABLE}) == len(TABLE)
    assert all(row.doc and not row.doc.endswith(".") for row in TABLE)


def test_the_page_of_documentation_holds_this_table() -> None:
    assert markdown() in (DOCS / "reference" / "settings.md").read_text()


def test_the_nearest_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    coded = {"threads": 3, "watchdog": False}
    environment = {"PERDURE_THREADS": "4", "PERDURE_TASKS": "5"}
    chosen = choose(TABLE, {"threads": 2}, coded=coded, environment=environment)
    assert (chosen["threads"].value, chosen["threads"].source) == (2, "argument")
    chosen = choose(TABLE, {}, coded=coded, environment=environment)
    assert (chosen["threads"].value, chosen["threads"].source) == (4, "environment")
    assert (chosen["tasks"].value, chosen["tasks"].source) == (5, "environment")
    assert (chosen["watchdog"].value, chosen["watchdog"].source) == (False, "application")
    assert (chosen["drain"].value, chosen["drain"].source) == (0.0, "default")


def test_an_empty_variable_is_none_given() -> None:
    assert choose(TABLE, {}, environment={"PERDURE_THREADS": " "})["threads"].source == "default"


def test_the_applications_own_settings_stay_where_nothing_else_is_said() -> None:
    own = df.Settings(limits=df.Limits(warm_bytes=5), drain=7.0)
    settings = engine_settings(own, choose(ENGINE, {"threads": 2}, coded=coded_in(own), environment={}))
    assert settings == df.Settings(
        limits=df.Limits(warm_bytes=5), drain=7.0, concurrency=df.Concurrency(threads=2)
    )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("threads", "lots"), ("threads", "0"), ("threads", 1.5), ("threads", True), ("drain", "-1"),
        ("drain", "5 weeks"), ("drain", "nan"), ("drain", float("nan")),
        ("warm_bytes", "5 elephants"), ("port", "65536"), ("port", -1), ("retention", "when I say so"),
        ("watchdog", "maybe"), ("watchdog", 1), ("hub", " "), ("interrupt_after", "0"), ("batch_episodes", "٣x"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_meant_is_refused_at_the_edge(name: str, wrong: Any) -> None:
    row = next(row for row in TABLE if row.name == name)
    with pytest.raises(SettingError, match=name) as caught:
        choose(TABLE, {name: wrong})
    assert row.doc in str(caught.value)
    if isinstance(wrong, str) and wrong.strip():
        with pytest.raises(SettingError, match=row.variable):
            choose(TABLE, {}, environment={row.variable: wrong})
        outcome = perdure("settings", f"{row.flag}={wrong}")
        assert outcome.exit_code == 2


async def test_a_misspelt_argument_is_answered_with_the_right_one() -> None:
    with pytest.raises(SettingError, match=r"'treads' is not a setting\. Did you mean 'threads'\?"):
        async with df.App("settled").running("memory:", treads=3):  # type: ignore[call-arg]
            pass


def test_durations_and_sizes_are_understood_as_people_write_them() -> None:
    def value(name: str, given: Any) -> Any:
        return choose(TABLE, {name: given})[name].value

    assert [value("drain", d) for d in ("1.5", "250ms", "5 min", "2h", timedelta(days=1), 3)] == [
        1.5, 0.25, 300.0, 7200.0, 86_400.0, 3.0,
    ]  # fmt: skip
    assert [value("warm_bytes", s) for s in ("4096", "1kb", "2 GiB", 7)] == [4096, 1000, 2 * 1024**3, 7]
    assert value("allowed_hosts", ["a", "b"]) == ("a", "b")


def test_a_password_in_the_stores_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_STORE", "postgresql://me:hunter2@db/claims")
    shown = perdure("settings")
    assert "hunter2" not in shown.stdout + shown.stderr
    assert "postgresql://me:***@db/claims" in shown.stdout
    assert told()["store"]["value"] == "postgresql://me:***@db/claims"


def test_a_variable_that_is_no_setting_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_TREADS", "3")
    assert (
        "PERDURE_TREADS is set but is not a setting. Did you mean PERDURE_THREADS?"
        in perdure("settings").stderr
    )


def test_with_an_application_its_own_settings_count_too(tmp_path: Path) -> None:
    (tmp_path / "settled.py").write_text(
        "import perdure as df\napp = df.App('claims', settings=df.Settings(drain=7.0))\n"
    )
    found = told(str(tmp_path / "settled.py"), "--threads", "2")
    assert (found["drain"]["value"], found["drain"]["source"]) == (7.0, "application")
    assert (found["hub"]["value"], found["hub"]["source"]) == ("claims", "application")
    assert (found["threads"]["value"], found["threads"]["source"]) == (2, "flag")


@pytest.mark.parametrize("given", ["0", "4097", "many"])
def test_the_number_of_partitions_has_limits(given: str) -> None:
    with pytest.raises(SettingError, match=r"but partitions must be a whole number, 1 to 4,?096 \("):
        choose(PLACE, {}, environment={"PERDURE_PARTITIONS": given})
