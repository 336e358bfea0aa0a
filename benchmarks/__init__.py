"""Speed and memory, measured beside others: see README.md. `python -m benchmarks` runs everything."""

import sys
from pathlib import Path

# The sources beside this folder are what is measured, whatever may be installed.
_SOURCE = Path(__file__).resolve().parent.parent / "src"
if _SOURCE.is_dir():
    sys.path.insert(0, str(_SOURCE))
