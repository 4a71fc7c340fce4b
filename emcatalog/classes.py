"""What each instance is: a column of a table as classes of the instances in a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emcatalog.entries.table import TableArguments, TableModel
from emcatalog.entries.volume import VolumeArguments
from emcatalog.errors import ArgumentError, MissingExtraError, SourceCorruptError, listing, suggest
from emcatalog.labels import renumber

UNLABELLED: Final = -1
"""Number of an instance of which nobody says what it is; 0 is where no instance is."""

UNLABELLED_NAME: Final = "unlabelled"


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

    def of_ids(self, ids: NDArray[Any]) -> NDArray[np.int32]:
        """The class of each of some ids: 0 for 0, ``UNLABELLED`` for one that the table does not know."""
        wanted = np.asarray(ids).astype(np.uint64, copy=False)
        places = np.minimum(np.searchsorted(self.ids, wanted), max(0, len(self.ids) - 1))
        known = self.ids[places] == wanted if len(self.ids) else np.zeros(wanted.shape, bool)
        found = np.where(known, self.numbers[places] if len(self.ids) else UNLABELLED, UNLABELLED)
        return np.where(wanted == 0, 0, found).astype(np.int32)

    def of(self, labels: NDArray[Any]) -> NDArray[Any]:
        """A volume of ids as a volume of classes.

        Args:
            labels: ids, unsigned or signed integers, of any shape.

        Returns:
            ``dtype`` of the same shape: 0 where there is no instance, 1, 2, ... for ``names``, ``UNLABELLED`` for an
            instance without a class.
        """
        if labels.dtype.kind == "i":
            labels = labels.view(f"u{labels.dtype.itemsize}")
        numbers, ids = renumber(labels)
        found: NDArray[Any] = self.of_ids(ids).astype(self.dtype)[numbers]
        return found

    def name(self, number: int) -> str:
        """What a class is called."""
        return UNLABELLED_NAME if number == UNLABELLED else self.names[number - 1]


def open_classes(arguments: VolumeArguments, column: str, names: Sequence[str] | None = None) -> Classes:
    """Read what a table of an entry says of its instances.

    Args:
        arguments: of the entry, whose ``annotations`` are looked through.
        column: of one of these tables.
        names: the classes that count, numbered 1, 2, ... in this order; what is of another class is ``UNLABELLED``.
            Default: all that occur, in the order of the alphabet, so that numbers do not depend on a box.

    Raises:
        ArgumentError: no table has such a column, or a name is not in it.
        MissingExtraError: what reads tables is not installed.
        SourceError, CacheError: the table cannot be read.
    """
    model = _find(arguments, column)
    ids, values = _read(model, column, arguments)
    there = sorted(set(values))
    chosen = there if names is None else _norm_names(names, there, column)
    number_of = {name: number for number, name in enumerate(chosen, 1)}
    numbers = np.fromiter((number_of.get(value, UNLABELLED) for value in values), np.int32, len(values))
    return Classes(column, tuple(chosen), *_one_each(ids, numbers, model))


def _find(arguments: VolumeArguments, column: str) -> TableModel:
    """The table that has a column."""
    there = {name: table for table in reversed(arguments.annotations) for name in table.columns if name != table.key}
    if column not in there:
        raise ArgumentError(
            f"no table of this entry has a column {column!r} that says what an instance is; there are {listing(there)}."
            f"{suggest(str(column), there)}"
        )
    return there[column]


def _read(model: TableModel, column: str, arguments: VolumeArguments) -> tuple[NDArray[np.uint64], list[str]]:
    """Ids, and what each is, without those of which nothing is said."""
    try:
        from emcatalog.tables.opening import open_table
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"tables are read by {error.name}: pip install 'emcatalog[tables]'") from error
    wanted = {"columns": [model.key, column], "filter": {column: {"!=": None}}}
    own = {"offline": arguments.offline, "cache_dir": arguments.cache_dir}
    table = open_table(TableArguments(table=model, **wanted, **own)).read()
    ids = table.column(model.key).to_numpy().astype(np.uint64)
    return ids, [str(value) for value in table.column(column).to_pylist()]


def _norm_names(names: Sequence[str], there: Sequence[str], column: str) -> list[str]:
    given = [names] if isinstance(names, str) else list(names)
    for name in given:
        if name not in there:
            raise ArgumentError(
                f"{column} has no class {name!r}; there are {listing(there[:50])}{', ...' if len(there) > 50 else ''}."
                f"{suggest(str(name), there)}"
            )
    if not given or len(set(given)) != len(given):
        raise ArgumentError(f"the classes {given!r} of {column}: name each once, and at least one")
    return given


def _one_each(ids: NDArray[np.uint64], numbers: NDArray[np.int32], model: TableModel) -> Any:
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
