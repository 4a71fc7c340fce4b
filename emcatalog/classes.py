"""What each instance is: a column of a table as classes of the instances in a volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emcatalog.entries.table import TableArguments, TableModel
from emcatalog.entries.volume import VolumeArguments
from emcatalog.errors import ArgumentError, SourceCorruptError, extra, listing, suggest
from emcatalog.labels import renumber

UNLABELLED: Final = -1
"""Number of an instance of which nobody says what it is; 0 is where no instance is."""

UNLABELLED_NAME: Final = "unlabelled"

_SHOWN: Final = 50
"""Of many names, in a message."""


@dataclass(frozen=True, eq=False)
class Classes:
    """Instances by id, and the class of each."""

    column: str
    """Of the table that says so."""
    names: tuple[str, ...]
    """Of the classes 1, 2, 3, ..."""
    ids: NDArray[np.uint64]
    """Of the instances, sorted."""
    numbers: NDArray[np.int32]
    """Class of each of ``ids``; ``UNLABELLED`` for one that is not among ``names``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of volumes of classes: the smallest that holds their numbers and -1."""
        return np.min_scalar_type(-len(self.names) - 1)

    def of_ids(self, ids: NDArray[Any] | Sequence[int]) -> NDArray[np.int32]:
        """The class of each of some ids: 0 for 0, ``UNLABELLED`` for one that the table does not know."""
        wanted = np.asarray(ids).astype(np.uint64, copy=False)
        if not len(self.ids):
            return np.where(wanted == 0, 0, UNLABELLED).astype(np.int32)
        places = self.ids.searchsorted(wanted)
        known = self.ids.take(places, mode="clip") == wanted
        found = np.where(known, self.numbers.take(places, mode="clip"), UNLABELLED)
        return np.where(wanted == 0, 0, found).astype(np.int32)

    def names_of(self, ids: NDArray[Any] | Sequence[int]) -> NDArray[np.object_]:
        """What the class of each of some ids is called; ``""`` for 0, ``"unlabelled"`` where nobody says."""
        named: NDArray[np.object_] = np.array(["", *self.names, UNLABELLED_NAME], dtype=object)[self.of_ids(ids)]
        return named

    def of(self, labels: NDArray[Any]) -> NDArray[Any]:
        """A volume of ids as a volume of classes.

        Args:
            labels: ids, integers of any shape.

        Returns:
            ``dtype`` of the same shape: 0 where there is no instance, 1, 2, ... for ``names``, ``UNLABELLED`` for an
            instance without a class.
        """
        numbers, ids = renumber(labels)
        found: NDArray[Any] = self.of_ids(ids).astype(self.dtype)[numbers]
        return found


def open_classes(arguments: VolumeArguments, column: str, names: Iterable[object] | None = None) -> Classes:
    """Read what a table of an entry says of its instances.

    Args:
        arguments: of the entry, whose ``annotations`` are looked through.
        column: of one of these tables.
        names: the classes that count, numbered 1, 2, ... in this order; what is of another class is ``UNLABELLED``.
            Default: all that occur in the table but an empty text, in the order of the alphabet or of numbers, whatever
            is in a box.

    Raises:
        ArgumentError: no table has such a column, it holds no classes, or a name is not in it.
        MissingExtraError: what reads tables is not installed.
        SourceError, CacheError: the table cannot be read.
    """
    model = _find(arguments, column)
    ids, values = _read(model, column, arguments)
    there = [str(value) for value in sorted(set(values) - {""})]
    chosen = there if names is None else _norm_names(names, there, column)
    number_of = {name: number for number, name in enumerate(chosen, 1)}
    numbers = np.fromiter((number_of.get(str(value), UNLABELLED) for value in values), np.int32, len(values))
    return Classes(column, tuple(chosen), *_one_each(ids, numbers, model))


def _find(arguments: VolumeArguments, column: object) -> TableModel:
    """The first table that has a column."""
    if not arguments.annotations:
        raise ArgumentError(
            f"{column!r}: this entry has no table that says what its instances are; its catalog can name one under"
            " annotations:"
        )
    tables = arguments.annotations
    for table in tables:
        if column in table.columns and column != table.key:
            return table
    there = list(dict.fromkeys(name for table in tables for name in table.columns if name != table.key))
    raise ArgumentError(
        f"no table of this entry has a column {column!r} that says what an instance is; there are {listing(there)}."
        f"{suggest(str(column), there)}"
    )


def _read(model: TableModel, column: str, arguments: VolumeArguments) -> tuple[NDArray[np.uint64], list[Any]]:
    """Ids, and what each is, without those of which nothing is said."""
    with extra("tables"):
        from emcatalog.tables.opening import open_table
        from emcatalog.tables.query import norm_where
    opened = open_table(TableArguments(table=model, offline=arguments.offline, cache_dir=arguments.cache_dir))
    key = model.key or ""
    _check_types(opened.schema, key, column, model.url)
    said = norm_where({name: {"!=": None} for name in (key, column)}, None, None, model.voxel_size, opened.schema)
    ids, values = replace(opened, columns=[key, column], where=said).read().columns
    return ids.to_numpy().astype(np.uint64), [_plain(value) for value in values.to_pylist()]


def _check_types(schema: Any, key: str, column: str, url: str) -> None:
    """Refuse columns of another release, and what are no ids or no classes."""
    import pyarrow as pa

    if column not in schema.names:
        raise ArgumentError(
            f"{url} has no column {column!r}, in this release; there are {listing(schema.names)}."
            f"{suggest(column, schema.names)}"
        )
    ids, values = (schema.field(name).type if name in schema.names else None for name in (key, column))
    if ids is None or not pa.types.is_integer(ids):
        raise SourceCorruptError(f"{url}: {key} holds {ids or 'nothing'}, which are no ids of instances")
    if pa.types.is_nested(values):
        raise ArgumentError(f"{column} holds {values}, which are no classes; take another column")


def _plain(value: Any) -> Any:
    """A whole number without the .0 that it has in a column with empty rows."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _norm_names(names: Any, there: Sequence[str], column: str) -> list[str]:
    is_list = isinstance(names, Iterable) and not isinstance(names, str)
    given = [str(name) for name in (names if is_list else [names])]
    for name in given:
        if name not in there:
            raise ArgumentError(
                f"{column} has no class {name!r}; there are {listing(there[:_SHOWN])}"
                f"{', ...' if len(there) > _SHOWN else ''}.{suggest(name, there)}"
            )
    if not given or len(set(given)) != len(given):
        raise ArgumentError(f"the classes {given!r} of {column}: name each once, and at least one")
    return given


def _one_each(
    ids: NDArray[np.uint64], numbers: NDArray[np.int32], model: TableModel
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Ids sorted, each once, and the class of each.

    Raises:
        SourceCorruptError: the table says two things of one instance.
    """
    order = np.argsort(ids, kind="stable")
    ids, numbers = ids[order], numbers[order]
    first = np.ones(len(ids), bool)
    first[1:] = ids[1:] != ids[:-1]
    group = np.cumsum(first) - 1
    if bad := ids[numbers != numbers[first][group]].tolist():
        raise SourceCorruptError(f"{model.url} says two things of the instances {listing(sorted(set(bad))[:10])}")
    return ids[first], numbers[first]
