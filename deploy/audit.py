"""Ask the package index for known vulnerabilities of the locked packages.

    python deploy/audit.py

Exit code 0: every package was checked and none is vulnerable. 1: some are. 2: the index has no advisories, or was not
reached, so that some packages were not checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parent.parent / "constraints.txt"


def main() -> int:
    what = ["--disable-pip", "--require-hashes", "--requirement", str(LOCK)]
    shape = ["--format", "json", "--progress-spinner", "off"]
    report = subprocess.run(
        [sys.executable, "-m", "pip_audit", *what, *shape], capture_output=True, text=True
    )
    try:
        packages: list[dict[str, Any]] = json.loads(report.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"The audit failed, and no package was checked:\n{report.stderr.strip()}", file=sys.stderr)
        return 2
    vulnerable = [package for package in packages if package.get("vulns")]
    unchecked = [package["name"] for package in packages if "skip_reason" in package]
    for package in vulnerable:
        for advisory in package["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no release"
            print(f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    if unchecked:
        print(
            f"{len(unchecked)} of {len(packages)} packages were not checked: this index has no advisories for them. "
            "Run the audit where the official index is reached."
        )
    else:
        print(f"{len(packages)} packages checked, {len(vulnerable)} of them vulnerable.")
    return 1 if vulnerable else 2 if unchecked else 0


if __name__ == "__main__":
    sys.exit(main())
