"""Which rows of a table are wanted: a caller's filter and box, held against the table's columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Integral, Real
from typing import Any, Final, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from emcatalog.errors import ArgumentError, listing, suggest
from emcatalog.geometry import Grid, NmBox, reverse, whole_if_near

Bounds = Mapping[str, tuple[float | None, float | None]]
"""By column: an interval, both ends in it, that every wanted row is in; None where it has no end."""

Interval = tuple[float | None, float | None]
Test = Callable[[pa.Array], pa.BooleanArray]

_ANY: Final[Interval] = (None, None)


@dataclass(frozen=True, slots=True)
class Term:
    """What a wanted row holds in one column."""

    name: str
    """Of the column."""
    test: Test
    """Which rows of a column hold; those of which it is null do not."""
    bounds: Interval = _ANY
    """What follows for their values."""


@dataclass(frozen=True)
class Where:
    """Which rows are wanted: those of which all terms hold."""

    terms: tuple[Term, ...]
    """None of them for all rows."""
    columns: tuple[str, ...]
    """That they look at, in the order of the table."""
    bounds: Bounds
    """What is known of every wanted row, so that whole parts of a table need not be read."""

    def may_hold(self, name: str, low: Any, high: Any) -> bool:
        """Whether a part of a table whose values of a column are from ``low`` to ``high`` can have wanted rows."""
        first, last = self.bounds.get(name, _ANY)
        return (first is None or high >= first) and (last is None or low <= last)

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Which rows of a batch are wanted, true or null; the batch has ``columns`` at least, which are some.

        With plain functions of arrays: an expression takes three times as long for a box, and ten times for categories.
        """
        return reduce(pc.and_, (term.test(batch.column(term.name)) for term in self.terms))

    def rows(self, batch: pa.RecordBatch) -> pa.Array:
        """Numbers of the rows of a batch that are wanted."""
        return pc.indices_nonzero(self.mask(batch))


EVERYTHING: Final = Where((), (), {})


def norm_columns(chosen: Iterable[str] | None, schema: pa.Schema, argument: str = "columns") -> list[str]:
    """Names of columns that there are; all of them where none are named.

    Raises:
        ArgumentError: one is not there; the message has near names.
    """
    if chosen is None:
        return list(schema.names)
    for name in chosen:
        if name not in schema.names:
            raise ArgumentError(
                f"{argument}: there is no column {name!r}; there are {listing(schema.names)}."
                f"{suggest(name, schema.names)}"
            )
    return list(chosen)


def norm_where(
    conditions: Mapping[str, Any],
    box: NmBox | None,
    axes: tuple[str, str, str] | None,
    voxel_size: tuple[float, float, float],
    schema: pa.Schema,
) -> Where:
    """Hold a filter and a box against the columns that there are.

    Args:
        conditions: column -> a value, a list of values, or a mapping of comparisons (``>=``, ``!=``, ...) to values.
        box: in space.
        axes: the columns of x, y and z.
        voxel_size: (x, y, z) of what they are counted in, nm.
        schema: of the table.

    Raises:
        ArgumentError: no such column, or a value that a column of its type cannot hold.
    """
    norm_columns(conditions, schema, "filter")
    terms = [term for name, wanted in conditions.items() for term in _terms(schema.field(name), wanted)]
    if box is not None:
        assert axes is not None, "arguments without coordinates have no box"
        norm_columns(axes, schema, "coordinates")
        terms += _box_terms([schema.field(name) for name in axes], box, voxel_size)
    names = {term.name for term in terms}
    bounds = {name: _tightest([term.bounds for term in terms if term.name == name]) for name in names}
    known = {name: interval for name, interval in bounds.items() if interval != _ANY}
    return Where(tuple(terms), tuple(name for name in schema.names if name in names), known)


def _tightest(intervals: Sequence[Interval]) -> Interval:
    lows, highs = ([end for end in ends if end is not None] for ends in zip(*intervals, strict=True))
    return max(lows, default=None), min(highs, default=None)


def _box_terms(fields: Sequence[pa.Field], box: NmBox, voxel_size: tuple[float, float, float]) -> Iterator[Term]:
    """Coordinates in a box. Whole numbers are those of voxels: of all that the box touches, as with volumes."""
    voxels = Grid((1, 1, 1), reverse(voxel_size)).from_nm(box)
    for field, size, axis in zip(fields, voxel_size, (2, 1, 0), strict=True):
        begin, end = (whole_if_near(edge[axis] / size) for edge in (box.begin_nm, box.end_nm))
        if _is_integer(field.type):
            begin, end = voxels.begin[axis], voxels.end[axis]
        elif not _is_float(field.type):
            raise ArgumentError(f"coordinates: {field.name} holds {_called(field.type)}, and a bbox needs numbers")
        low, high = _compared(field, ">=", begin), _compared(field, "<", end)
        yield Term(field.name, _both(low.test, high.test), _tightest([low.bounds, high.bounds]))


def _terms(field: pa.Field, wanted: Any) -> Iterator[Term]:
    """What one item of a filter says."""
    if isinstance(wanted, Mapping):
        if not wanted or not set(wanted) <= {*_EQUAL, *_ORDER}:
            raise ArgumentError(
                f"filter: {field.name}: {wanted!r:.80} is no mapping of comparisons; there are"
                f" {listing((*_EQUAL, *_ORDER))}, as in {{'>=': 0.7}}"
            )
        for comparison, value in wanted.items():
            yield _compared(field, comparison, value) if comparison in _ORDER else _equal(field, comparison, value)
    elif isinstance(wanted, Iterator):
        raise ArgumentError(f"filter: {field.name}: {wanted!r:.80} can be gone through once only; give a list")
    elif isinstance(wanted, (pa.Array, pa.ChunkedArray)):
        yield _among(field, wanted.to_pylist())
    elif isinstance(wanted, Iterable) and not isinstance(wanted, (str, bytes)) and getattr(wanted, "ndim", 1) > 0:
        yield _among(field, list(wanted))
    else:
        yield _equal(field, "==", wanted)


def _equal(field: pa.Field, comparison: str, value: Any) -> Term:
    if _is_none(value):
        return Term(field.name, _is_missing if comparison == "==" else _is_there)
    found = _value(field, value)
    if found is None:
        return Term(field.name, _nothing if comparison == "==" else _is_there)
    scalar = pa.scalar(found, _inner(field.type))
    if comparison == "==":
        return Term(field.name, _of_values(lambda values: pc.equal(values, scalar)), _bounds(field, [found]))
    # NaN, which is no value, differs from all.
    return Term(field.name, _both(_is_there, _of_values(lambda values: pc.not_equal(values, scalar))))


def _among(field: pa.Field, values: Sequence[Any]) -> Term:
    found = [one for value in values if not _is_none(value) and (one := _value(field, value)) is not None]
    tests: list[Test] = []
    if found:  # of no values at all the type could not be told
        among = pa.array(found, _inner(field.type))
        tests.append(_of_values(lambda column: pc.is_in(column, value_set=among)))
    if any(map(_is_none, values)):
        tests.append(_is_missing)
        return Term(field.name, lambda column: reduce(pc.or_kleene, (test(column) for test in tests)))
    return Term(field.name, tests[0], _bounds(field, found)) if found else Term(field.name, _nothing)


def _compared(field: pa.Field, comparison: str, value: Any) -> Term:
    """An order comparison; one with a number that the column's type cannot hold holds for all numbers or for none."""
    number, upper = _number(value), comparison.startswith("<")
    if number is None or not (_is_integer(field.type) or _is_float(field.type)):
        _refuse(field, value, f", and {comparison} compares numbers")
    if _is_integer(field.type) and isinstance(number, float) and math.isfinite(number):
        number = (math.ceil if comparison in (">=", "<") else math.floor)(number)
    found = _value(field, number)
    if found is None:
        return Term(field.name, _is_there if (number > 0) == upper else _nothing)
    scalar = pa.scalar(found, field.type)
    return Term(
        field.name, lambda column: _ORDER[comparison](column, scalar), (None, found) if upper else (found, None)
    )


def _value(field: pa.Field, value: Any) -> Any:
    """A caller's value as a column of its type has it; None where no row of that type can hold it.

    Raises:
        ArgumentError: it is of another type.
    """
    kind, number = _inner(field.type), _number(value)
    if pa.types.is_boolean(kind) and isinstance(value, (bool, np.bool_)):
        return bool(value)
    if _is_text(kind) and isinstance(value, str):
        return str(value)
    if number is None:
        return _refuse(field, value)
    if _is_float(kind):
        return pa.scalar(_as_float(number), kind).as_py()  # as near as the type comes, which is what pandas compares
    if _is_integer(kind):
        limits = np.iinfo(kind.to_pandas_dtype())
        return int(number) if limits.min <= number <= limits.max and number == int(number) else None
    return _refuse(field, value)


def _number(value: object) -> int | float | None:
    """A number that has an order, as Python's own; None for anything else."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real) or _is_none(value):
        return None
    return int(value) if isinstance(value, Integral) else _as_float(value)


def _as_float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _is_none(value: object) -> bool:
    """Whether it stands for no value: None, and what pandas has in its place (NaN, NA, NaT)."""
    return pd.isna(value) is True


def _refuse(field: pa.Field, value: Any, why: str = "") -> NoReturn:
    raise ArgumentError(
        f"filter: {field.name} holds {_called(field.type)}{why}; {value!r:.80} cannot be compared with it"
    )


def _called(kind: pa.DataType) -> str:
    """A type as a person calls it."""
    return "text" if _is_text(_inner(kind)) else str(kind)


def _bounds(field: pa.Field, values: Sequence[Any]) -> Interval:
    is_number = _is_integer(field.type) or _is_float(field.type)
    return (min(values), max(values)) if values and is_number else _ANY


def _inner(kind: pa.DataType) -> pa.DataType:
    """Of categories, the type of each."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_integer(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))


def _is_float(kind: pa.DataType) -> bool:
    """With an order that pyarrow knows: of half precision it knows none."""
    return bool(pa.types.is_float32(kind) or pa.types.is_float64(kind))


# --- tests of columns


def _both(one: Test, other: Test) -> Test:
    return lambda column: pc.and_(one(column), other(column))


def _of_values(test: Test) -> Test:
    """A test of values as one of a column, which may hold categories: each of these is looked at once."""

    def of_column(column: pa.Array) -> pa.BooleanArray:
        if isinstance(column, pa.DictionaryArray):
            return test(column.dictionary).take(column.indices)
        return test(column)

    return of_column


def _is_missing(column: pa.Array) -> pa.BooleanArray:
    """NaN is no value, as with pandas; and a category may be null."""
    if isinstance(column, pa.DictionaryArray):
        return pc.fill_null(_is_missing(column.dictionary).take(column.indices), fill_value=True)
    return pc.is_null(column, nan_is_null=True)


def _is_there(column: pa.Array) -> pa.BooleanArray:
    return pc.invert(_is_missing(column))


def _nothing(column: pa.Array) -> pa.BooleanArray:
    return pc.and_(_is_missing(column), _is_there(column))


_EQUAL: Final = ("==", "!=")
_ORDER: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    ">": pc.greater, ">=": pc.greater_equal, "<": pc.less, "<=": pc.less_equal,
}  # fmt: skip
