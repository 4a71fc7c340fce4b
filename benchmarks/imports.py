"""How long until a user sees the list of entries?

    python -m benchmarks.imports [--repeats 7]

Peers: Python alone, and Intake opening an empty catalog.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness import table

HEAVY = ("tensorstore", "torch", "dask", "xarray")
LIST = "import intake, emcatalog, sys; list(intake.open_catalog(emcatalog.CATALOG))"


def seconds(code: str) -> float:
    """Wall time of a Python process that runs this code."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    with TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.yaml"
        empty.write_text("sources: {}\n")
        cases = {
            "python -c pass": "pass",
            "intake, an empty catalog": f"import intake; list(intake.open_catalog({str(empty)!r}))",
            "import emcatalog, open, list": LIST,
        }
        for code in cases.values():
            seconds(code)  # once to warm the file cache
        medians = {name: statistics.median(seconds(code) for _ in range(repeats)) for name, code in cases.items()}
    table("Until the entries are listed", ["case", "seconds (median)"], [(n, f"{s:.3f}") for n, s in medians.items()])
    loaded = subprocess.run(
        [sys.executable, "-c", f"{LIST}; print([m for m in {HEAVY} if m in sys.modules])"],
        check=True,
        capture_output=True,
        text=True,
    )
    print(f"of {HEAVY} it imports: {loaded.stdout.strip()} (target: none, and at most 0.3 s)")


if __name__ == "__main__":
    main()
