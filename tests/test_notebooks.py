"""The notebooks run as they are, and what is committed of them can be shown.

``python -m tests.test_notebooks`` (``make notebooks``) runs them in place, with all their steps and an empty cache.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
MOST_BYTES = 1_000_000
ABSOLUTE_PATH = re.compile(r"/(root|home|Users|tmp|var|opt|work|private)/")

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def run(notebook: Path, folder: Path, **environment: str) -> NotebookNode:
    """Run a notebook with what it needs beside it in a folder, and give it back with its outputs.

    Raises:
        CellExecutionError: a cell failed.
    """
    shutil.copytree(REPOSITORY / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "notebooks").mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # `emcatalog`, as a command
        "IPYTHONDIR": str(folder / "ipython"),
        **environment,
    }
    client = NotebookClient(
        nbformat.read(notebook, as_version=4),
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder / "notebooks")}},
    )
    return client.execute(env={**os.environ, **environment})


def outputs(notebook: NotebookNode) -> Iterator[dict[str, Any]]:
    """What cells gave, by MIME type; what they printed as text."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            yield output.get("data") or {"text/plain": output.get("text", "")}


def text_of(notebook: NotebookNode) -> str:
    """All of the outputs that are no pictures."""
    return "\n".join(
        text for output in outputs(notebook) for kind, text in output.items() if not kind.startswith("image/")
    )


@each_notebook
def test_it_runs(notebook: Path, tmp_path: Path) -> None:
    """A few steps suffice here, and one thread: what a training brings is the matter of ``test_training``."""
    done = run(notebook, tmp_path / "here", EMCATALOG_TRAIN_STEPS="12", OMP_NUM_THREADS="1")
    assert any("image/png" in output for output in outputs(done))


@each_notebook
def test_as_committed(notebook: Path) -> None:
    """Run from the first cell to the last, with pictures, small, no warning, and no word about whose machine it was."""
    committed = nbformat.read(notebook, as_version=4)
    nbformat.validate(committed)
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert any("image/png" in output for output in outputs(committed))
    assert not any(output.get("name") == "stderr" for cell in committed.cells for output in cell.get("outputs", ()))
    assert notebook.stat().st_size < MOST_BYTES
    assert ABSOLUTE_PATH.search(text_of(committed)) is None
    assert committed.metadata.keys() == {"kernelspec", "language_info"}


def refresh(notebook: Path) -> None:
    """Run a notebook in place; a cache of its own is called what most users' is."""
    with TemporaryDirectory() as folder:
        cache = f"{folder}/cache"
        done = run(notebook, Path(folder) / "here", EMCATALOG_CACHE=cache)
    done.metadata.language_info = {"name": "python"}
    for output in outputs(done):
        output.pop("image/jpeg", None)  # Pillow gives each picture twice
    text = nbformat.writes(done).replace(cache, "~/.cache/emcatalog")
    notebook.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for each in NOTEBOOKS:
        refresh(each)
