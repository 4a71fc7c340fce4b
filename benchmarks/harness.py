"""Running cases in processes of their own, in turn, so that a slow minute of the machine hits all of them alike."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parent.parent
REAL_DATA = REPOSITORY.parent / "shared" / "data" / "fib25" / "fib25_training2.npz"
"""Real FIB-SEM where it is at hand; the phantom otherwise."""

console = Console(width=120 if not sys.stdout.isatty() else None)


@dataclass(frozen=True)
class Measurement:
    """One run of one case."""

    seconds: float
    """Of what the case timed: imports and set-up are not in it."""
    peak_mb: float
    """Largest resident size of the process, everything included."""
    facts: dict[str, Any]
    """What else the case reported."""


@dataclass(frozen=True)
class Summary:
    """Medians over the runs of one case."""

    seconds: float
    peak_mb: float
    facts: dict[str, Any]
    """Of the last run."""


@contextmanager
def timed(facts: dict[str, Any]) -> Iterator[None]:
    """In a case: time what is inside into ``facts["seconds"]``."""
    started = time.perf_counter()
    yield
    facts["seconds"] = time.perf_counter() - started


def timed_again(facts: dict[str, Any], work: Callable[[], Any], times: int = 5) -> Any:
    """In a case: the median of several calls in one process into ``facts["seconds"]``, and what the last returned.

    For what fills gigabytes of fresh memory: on a virtual machine the first touch of memory that the host had taken
    away costs seconds a gigabyte, more than any of the peers takes to decode it.
    """
    seconds = []
    for _ in range(times):
        result = None  # frees what the last call returned, as a training loop would
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    facts.update(seconds=statistics.median(seconds), first=seconds[0])
    return result


def report(facts: dict[str, Any]) -> None:
    """In a case: print the measurement, as its last line, for the runner."""
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": facts.pop("seconds"), "peak_mb": peak_mb, "facts": facts}), flush=True)


def run_case(module: str, case: str, *arguments: object, env: Mapping[str, str] | None = None) -> Measurement:
    """Run one case in a fresh process."""
    command = [sys.executable, "-m", module, "--case", case, *map(str, arguments)]
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, check=True)
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def medians(cases: Mapping[str, Callable[[], Measurement]], repeats: int) -> dict[str, Summary]:
    """Run all cases in turn, ``repeats`` times over, and take the median of each."""
    runs: dict[str, list[Measurement]] = {name: [] for name in cases}
    for repeat in range(repeats):
        for name, case in cases.items():
            console.print(f"  run {repeat + 1} of {repeats}: {name}", style="dim")
            runs[name].append(case())
    return {name: _summary(measured) for name, measured in runs.items()}


def _summary(runs: Sequence[Measurement]) -> Summary:
    seconds = statistics.median(run.seconds for run in runs)
    return Summary(seconds, statistics.median(run.peak_mb for run in runs), runs[-1].facts)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    drawn = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        drawn.add_row(*map(str, row))
    console.print(drawn)


def print_times(title: str, summaries: Mapping[str, Summary]) -> None:
    """Print what each case took, of cases whose facts count requests and bytes."""
    rows = [
        [name, f"{s.seconds:.2f}", f"{s.peak_mb:.0f}", s.facts["requests"], f"{s.facts['received_mb']:.1f}"]
        for name, s in summaries.items()
    ]
    table(title, ["case", "seconds (median)", "peak MB", "requests", "MB received"], rows)


Target = tuple[str, str, str, bool]
"""What is compared, as measured, its target, and whether it is reached."""


def ratio(what: str, measured: float, target: float) -> Target:
    """A ratio that is to be at least so large."""
    return what, f"{measured:.2f}", f"at least {target}", measured >= target


def at_most(what: str, measured: float, target: float) -> Target:
    """A number that is to be at most so large."""
    return what, f"{measured:.0f}", f"at most {target}", measured <= target


def print_targets(rows: Sequence[Target]) -> None:
    """Print what was to be reached, and what was."""
    verdicts = [(what, measured, target, "yes" if reached else "NO") for what, measured, target, reached in rows]
    table("Targets", ["", "measured", "target", "reached"], verdicts)


def data_folder() -> Path:
    """Where replicas and outputs of benchmarks lie: ``EMCATALOG_BENCH``, or a folder in the user's cache."""
    import platformdirs

    folder = Path(os.environ.get("EMCATALOG_BENCH") or platformdirs.user_cache_path("emcatalog-bench"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def replica(side: int) -> Path:
    """A replica of the male CNS bucket with a cube of data; made once."""
    folder = data_folder() / f"replica-{side}"
    if not (folder / "v1.0").is_dir():
        console.print(f"making a replica of {side} cubed in {folder} ...")
        real = ["--npz", str(REAL_DATA)] if REAL_DATA.exists() else []
        command = [sys.executable, "-m", "tests.replica.malecns", str(folder), "--size", str(side), *real]
        subprocess.run(command, cwd=REPOSITORY, check=True)
    return folder
