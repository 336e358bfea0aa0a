"""The lock file, what installs from it, and the audit of it."""

import json
import re
import subprocess
import tomllib
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy import audit, install
from tests.docs.shell import ROOT

ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<rest>(.*\\\n)*.*)\n", re.MULTILINE)
LOCKED = {found["name"]: found["rest"] for found in ENTRY.finditer((ROOT / "constraints.txt").read_text())}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_locked_package_has_a_hash() -> None:
    assert len(LOCKED) > 100
    assert [name for name, rest in LOCKED.items() if "--hash=sha256:" not in rest] == []


@pytest.mark.parametrize("extra", [*PROJECT["project"]["optional-dependencies"], None])
def test_every_extra_is_locked(extra: str | None) -> None:
    required = install.requirements([extra] if extra else [])
    names = {canonicalize_name(Requirement(line).name) for line in required}
    assert {"apsw", "msgspec"} <= names and "perdure" not in names
    assert names - LOCKED.keys() == {"tzdata"} - LOCKED.keys()


def test_all_holds_every_extra_but_that_of_the_example() -> None:
    extras = PROJECT["project"]["optional-dependencies"].keys() - {"all", "demo"}
    every = install.requirements(sorted(extras))
    assert sorted(set(install.requirements(["all"]))) == sorted(set(every))


def test_the_installer_is_locked_with_its_hashes() -> None:
    assert re.match(r"pip==\S+ \\\n +--hash=sha256:", install.locked("pip"))


PACKAGES = [
    ({"name": "good", "version": "1.0", "vulns": []}, 0, "1 packages checked, 0 of them vulnerable."),
    (
        {"name": "bad", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]},
        1,
        "bad 1.0: CVE-1, fixed in 1.1",
    ),
    ({"name": "unknown", "skip_reason": "not found"}, 2, "1 of 1 packages were not checked"),
]


@pytest.mark.parametrize(("package", "code", "words"), PACKAGES)
def test_the_audit_says_what_it_found_and_what_it_could_not_ask(
    package: dict[str, Any], code: int, words: str, monkeypatch: Any, capsys: Any
) -> None:
    report = SimpleNamespace(stdout=json.dumps({"dependencies": [package]}), stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: report)
    assert audit.main() == code
    assert words in capsys.readouterr().out


def test_an_audit_that_fails_is_not_taken_for_a_clean_one(monkeypatch: Any, capsys: Any) -> None:
    report = SimpleNamespace(stdout="", stderr="no index")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: report)
    assert audit.main() == 2
    assert "no package was checked:\nno index" in capsys.readouterr().err
