"""The benchmark's package `field` lies in benchmarks/, which is on no path otherwise."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
