"""Tables of the male CNS bucket in miniature, or in any size: `gs://flyem-male-cns/{version}/connectome-data/...`.

    paths = build_tables(folder, 50_000)                        # all seven tables of both releases
    paths["v0.9", "synapse_points"]
    build_tables(folder, region=(40000, 40160, 40000, 40160, 20000, 20160), labels=labels)

Written are the files that `feather.write_feather(frame, path)` writes (Arrow IPC with LZ4, record batches of 65,536
rows, pandas' notes in the schema), but batch by batch, so that a table of 20 million rows takes the memory of a small
one. Columns and types are those of `table_columns`, synapses those of `table_world`.

The tables agree. The ends of syn-partners are rows of syn-points, with the same bodies and confidences; each T-bar of
syn-points is a row of tbar-neurotransmitters; connectome-weights, body-stats and body-neurotransmitters are counted
from the synapses; every annotated body is in body-annotations, some without a superclass, some without synapses. Most
bodies of PSDs have no annotations. In the release v1.0 the labels are larger by `V1_OFFSET`, other synapses are drawn,
and two tables have a column more.

As a program: `python -m tests.replica.tables FOLDER --table synapse_points --rows 20000000`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.replica.malecns import V1_OFFSET
from tests.replica.region import Region
from tests.replica.stored import Array
from tests.replica.table_bodies import (
    NAMES_OF_TRANSMITTERS,
    UNCLEAR,
    Annotations,
    Counts,
    annotation_columns,
    categories,
    numbers,
    texts,
    transmitter,
)
from tests.replica.table_columns import NAMES, file_schema, published_schema
from tests.replica.table_points import Columns, Points
from tests.replica.table_world import (
    BATCH,
    Ints,
    World,
    fraction,
    make_world,
    noise,
    point_numbers,
    psd_numbers,
    ranges,
)

BBox = tuple[int, int, int, int, int, int]
FEW = ("z", "y", "x", "kind", "conf", "sv", "body", "point_id")
"""Columns of syn-points without regions."""
VERSIONS = ("v0.9", "v1.0")
_WITHOUT_CONFIDENCE = ("body_neurotransmitters", "tbar_neurotransmitters")


def table_path(folder: str | os.PathLike[str], name: str, version: str) -> Path:
    """Where a table of a release is, `folder` standing for the bucket."""
    stem = name.replace("_", "-").replace("synapse", "syn")
    confidence = "" if name in _WITHOUT_CONFIDENCE else "-minconf-0.5"
    flat = Path(folder) / version / "connectome-data" / "flat-connectome"
    return flat / f"{stem}-male-cns-{version}{confidence}.feather"


def build_tables(
    folder: str | os.PathLike[str],
    rows: int | Mapping[str, int] = 50_000,
    *,
    versions: Sequence[str] = VERSIONS,
    seed: int = 0,
    region: BBox | None = None,
    labels: Array | None = None,
    bodies: Iterable[int] | None = None,
    share: float = 0.25,
) -> dict[tuple[str, str], Path]:
    """Write the seven tables of releases under `folder`, and return their paths by version and name.

    Args:
        folder: Stands for the bucket.
        rows: Of syn-points, or `{"synapse_points": ..., "body_annotations": ...}`. The rows of the other tables follow.
        versions: The releases.
        seed: Selects other synapses and names.
        region: `(x0, x1, y0, y1, z0, z1)` in voxels of 8 nm, where `labels` are.
        labels: `(z, y, x)`, of v0.9: what points there belong to.
        bodies: Ids of v0.9 that have annotations, beside made-up ones; None for those of `labels` but every tenth.
        share: Of all T-bars, how many are in the region.

    Raises:
        ValueError: Rows of a table that they cannot be chosen for, or labels that do not fill their region.
    """
    wanted = dict(rows) if isinstance(rows, Mapping) else {"synapse_points": rows}
    points, annotated = wanted.pop("synapse_points", 50_000), wanted.pop("body_annotations", None)
    if wanted:
        raise ValueError(f"rows of {sorted(wanted)} follow from those of synapse_points and body_annotations")
    known = _most_of(labels) if bodies is None else list(bodies)
    paths = {}
    for version in versions:
        offset = V1_OFFSET if version == "v1.0" else 0
        tissue = _tissue(region, labels, offset)
        world = make_world(
            points,
            seed=seed + VERSIONS.index(version),
            annotated=annotated,
            bodies=[body + offset for body in known],
            tissue=tissue,
            share=share,
        )
        counts = Counts(world)
        for name in NAMES:
            paths[version, name] = write_table(table_path(folder, name, version), name, counts, version=version)
    return paths


def _tissue(region: BBox | None, labels: Array | None, offset: int) -> Region | None:
    if (region is None) != (labels is None):
        raise ValueError("a region needs labels, and labels need a region")
    if region is None or labels is None:
        return None
    x0, x1, y0, y1, z0, z1 = region
    return Region(((z0, z1), (y0, y1), (x0, x1)), labels.astype(np.int64) + offset * (labels > 0))


def _most_of(labels: Array | None) -> list[int]:
    """Ids of labels but for every tenth, and 0."""
    ids = np.zeros(0, np.int64) if labels is None else np.unique(labels).astype(np.int64)
    return np.delete(ids, np.s_[::10]).tolist()


# --- writing


def write_table(
    path: str | os.PathLike[str],
    name: str,
    source: World | Counts,
    *,
    version: str = "v1.0",
    columns: Sequence[str] | None = None,
    order: str = "random",
) -> Path:
    """Write one table, and return its path.

    Args:
        path: Of the file; folders are made.
        name: One of `NAMES`.
        source: The synapses; `Counts` keeps what several tables are counted from.
        version: The release, which says what columns there are.
        columns: Only these; None for all.
        order: Of syn-points: `random`, or `z` for sorted by z, y and x. The published order is not known.
    """
    counts = source if isinstance(source, Counts) else Counts(source)
    names = [column for column in published_schema(name, version).names if columns is None or column in columns]
    rows, batches = _MAKERS[name](counts, names, order)
    schema = file_schema(name, version, rows, names)
    options = pa.ipc.IpcWriteOptions(compression="lz4", allow_64bit=True, unify_dictionaries=True)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(str(target), schema, options=options) as writer:
        for batch in batches:
            arrays = [array.cast(field.type) for array, field in zip(batch, schema, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return target


Batches = Iterator[Sequence[pa.Array]]
_Made = tuple[int, Batches]
"""How many rows, and the columns of each record batch."""


def _cut(columns: Mapping[str, pa.Array], names: Sequence[str]) -> _Made:
    """Columns that are held, as record batches."""
    kept = [columns[name] for name in names]
    rows = len(kept[0])
    return rows, ([column.slice(start, BATCH) for column in kept] for start in range(0, rows, BATCH))


# --- tables of synapses


def _synapse_points(counts: Counts, names: Sequence[str], order: str) -> _Made:
    world = counts.world
    batches = (Columns(Points(world, *point_numbers(rows))) for rows in world.rows(order))
    return world.points, ([batch.array(name) for name in names] for batch in batches)


def _synapse_partners(counts: Counts, names: Sequence[str], _: str) -> _Made:
    """PSDs of one T-bar follow each other, as published."""
    world = counts.world

    def batch(rows: Ints) -> list[pa.Array]:
        tbar, rank = psd_numbers(rows)
        tbar = world.shuffled_tbars(tbar)
        ends = {"pre": Columns(Points(world, tbar, np.zeros_like(rank))), "post": Columns(Points(world, tbar, rank))}
        return [ends[end].array(name) for name, end in (column.rsplit("_", 1) for column in names)]

    return world.psds, (batch(rows) for rows in ranges(world.psds))


def _tbar_neurotransmitters(counts: Counts, names: Sequence[str], _: str) -> _Made:
    world = counts.world
    batches = (
        Columns(Points(world, world.shuffled_tbars(tbars), np.zeros_like(tbars))) for tbars in ranges(world.tbars)
    )
    return world.tbars, ([batch.array(name) for name in names] for batch in batches)


# --- tables of bodies


def _body_annotations(counts: Counts, names: Sequence[str], _: str) -> _Made:
    return _cut(annotation_columns(counts.world), names)


def _body_neurotransmitters(counts: Counts, names: Sequence[str], _: str) -> _Made:
    """Bodies with T-bars, and some that have annotations and none."""
    world = counts.world
    bodies, tbars = np.unique(np.concatenate([counts.tbar_bodies, world.annotated[::3]]), return_counts=True)
    tbars -= np.isin(bodies, world.annotated[::3])
    known = Annotations(world, bodies)
    typed = known.type_code >= 0
    of_type = np.bincount(known.type_code[typed], tbars[typed], known.types).astype(np.int64)
    released = transmitter(world.seed, bodies)
    confidence = (0.2 + 0.75 * fraction(noise(world.seed, 37, bodies))).astype(np.float64)
    predicted = np.where((tbars >= 5) & (confidence >= 0.5), released, UNCLEAR)
    type_predicted = np.where(typed & (of_type[known.type_code] >= 5), known.type_code % UNCLEAR, UNCLEAR)
    checked = typed & (known.type_code % 2 == 0)
    truth = np.where(checked, known.type_code % UNCLEAR, -1)
    columns = {
        "body": pa.array(bodies),
        "cell_type": known.type,
        "total_nt_predictions": pa.array(tbars),
        "predicted_nt_confidence": numbers(confidence, tbars == 0),
        "predicted_nt": texts(NAMES_OF_TRANSMITTERS, predicted),
        "ground_truth": texts(NAMES_OF_TRANSMITTERS, truth),
        "celltype_total_nt_predictions": pa.array(np.where(typed, of_type[known.type_code], tbars)),
        "celltype_predicted_nt": texts(NAMES_OF_TRANSMITTERS, type_predicted),
        "celltype_predicted_nt_confidence": numbers(0.5 + known.type_code % 50 / 100, ~typed),
        "consensus_nt": texts(NAMES_OF_TRANSMITTERS, np.select([checked, typed], [truth, type_predicted], predicted)),
    }
    return _cut(columns, names)


def _body_stats(counts: Counts, names: Sequence[str], _: str) -> _Made:
    bodies, pre, post, downstream = counts.stats
    known = Annotations(counts.world, bodies)
    columns = {
        "body": pa.array(bodies),
        "pre": pa.array(pre),
        "post": pa.array(post),
        "status_fine": categories("status_fine", known.status_code),
        "superclass": known.superclass,
        "class": known.class_,
        "type": known.type,
        "instance": known.instance,
        "downstream": pa.array(downstream),
        "synweight": pa.array(post + downstream),
        "rank": pa.array(np.arange(1, len(bodies) + 1)),
    }
    return _cut(columns, names)


def _connectome_weights(counts: Counts, names: Sequence[str], _: str) -> _Made:
    return _cut(dict(zip(("body_pre", "body_post", "weight"), map(pa.array, counts.weights), strict=True)), names)


_MAKERS: dict[str, Callable[[Counts, Sequence[str], str], _Made]] = {
    "body_annotations": _body_annotations,
    "body_neurotransmitters": _body_neurotransmitters,
    "body_stats": _body_stats,
    "connectome_weights": _connectome_weights,
    "synapse_points": _synapse_points,
    "synapse_partners": _synapse_partners,
    "tbar_neurotransmitters": _tbar_neurotransmitters,
}


def count_rows(path: str | os.PathLike[str]) -> int:
    """Rows of a table, from its last record batch."""
    with pa.ipc.open_file(os.fspath(path)) as reader:
        last: int = reader.num_record_batches - 1
        return BATCH * last + int(reader.get_batch(last).num_rows)


def spoil(path: str | os.PathLike[str], at: float = 0.5, nbytes: int = 64) -> None:
    """Overwrite some bytes of a file, `at` being a part of its length: by default inside its record batches."""
    with Path(path).open("r+b") as file:
        file.seek(int(at * Path(path).stat().st_size))
        file.write(b"\xa5" * nbytes)


# --- the program


def main() -> None:
    """Write tables of one release and say of each where it is and what it took."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", help="stands for the bucket")
    parser.add_argument("--table", choices=NAMES, action="append", help="may be given again; all seven without")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of synapse_points; those of the others follow")
    parser.add_argument("--columns", choices=("few", "all"), default="all", help="of synapse_points")
    parser.add_argument("--order", choices=("random", "z"), default="random", help="of synapse_points")
    parser.add_argument("--version", choices=VERSIONS, default="v1.0")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts = Counts(make_world(arguments.rows, seed=arguments.seed))
    for name in arguments.table or NAMES:
        begun = time.perf_counter()
        few = arguments.columns == "few" and name == "synapse_points"
        path = write_table(
            table_path(arguments.folder, name, arguments.version),
            name,
            counts,
            version=arguments.version,
            columns=FEW if few else None,
            order=arguments.order,
        )
        report = {"table": name, "path": str(path), "bytes": path.stat().st_size, "rows": count_rows(path)}
        sys.stdout.write(json.dumps({**report, "seconds": round(time.perf_counter() - begun, 1)}) + "\n")


if __name__ == "__main__":
    main()
