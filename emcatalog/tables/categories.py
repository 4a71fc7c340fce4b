"""Columns of categories (dictionaries, in Arrow's words) through a copy of a table and back.

On the way into a copy they are codes in one dictionary a column; in Parquet they are text, as any tool can read it;
what is read has the source's dictionary again, its order and its type of codes, all of which Parquet forgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

_LONG: Final = 1 << 12
"""Parquet writes all of a dictionary into each row group; of more categories than that, values are stored instead."""


class Coding:
    """Categories as codes in one dictionary a column, whatever dictionaries the batches of a table come with."""

    def __init__(self, schema: pa.Schema) -> None:
        """Nothing is known yet of the categories."""
        self.dictionaries: dict[str, pa.Array] = {
            field.name: pa.array([], field.type.value_type) for field in schema if pa.types.is_dictionary(field.type)
        }
        """What was seen so far, in the order of the table."""

    def code(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch with codes for categories."""
        columns = [
            self._codes(name, column) if name in self.dictionaries else column
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)

    def _codes(self, name: str, column: pa.DictionaryArray) -> pa.Array:
        known, here = self.dictionaries[name], column.dictionary
        if here.equals(known):
            return column.indices
        if here.slice(0, len(known)).equals(known):  # it has grown, as dictionaries of an Arrow file may
            self.dictionaries[name] = here
            return column.indices
        new = here.filter(codes_in(here, known).is_null()).drop_null()
        self.dictionaries[name] = pa.concat_arrays([known, new])
        places = codes_in(here, self.dictionaries[name])
        return places.take(column.indices).cast(column.type.index_type)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table, as it has them and as Parquet does."""

    no_rows: pa.RecordBatch
    """All that is known of them: the schema, and the dictionaries."""

    @classmethod
    def of(cls, schema: pa.Schema, dictionaries: Mapping[str, pa.Array]) -> Columns:
        """Columns with these categories."""
        arrays = [
            _categories(pa.array([], field.type.index_type), dictionaries[field.name], field.type)
            if field.name in dictionaries
            else pa.array([], field.type)
            for field in schema
        ]
        return cls(pa.RecordBatch.from_arrays(arrays, schema=schema))

    @property
    def schema(self) -> pa.Schema:
        """Of the table, with what pandas wrote about its index."""
        return self.no_rows.schema

    def to_stored(self, coded: pa.RecordBatch) -> pa.RecordBatch:
        """What is written, for rows whose categories are codes; columns that the table does not have stay."""
        columns = [self._spelt(name, column) for name, column in zip(coded.schema.names, coded.columns, strict=True)]
        stored = pa.RecordBatch.from_arrays(columns, names=coded.schema.names)
        # pandas' notes say to any Parquet tool what the index is.
        return stored.replace_schema_metadata(self.schema.metadata)

    def from_stored(self, stored: pa.RecordBatch) -> pa.RecordBatch:
        """Columns as the table has them; those that it does not have stay.

        Raises:
            pa.ArrowInvalid: a category that the table does not have.
        """
        fields = [self._field(field.name) or field for field in stored.schema]
        columns = [self._restored(field, column) for field, column in zip(fields, stored.columns, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, metadata=self.schema.metadata))

    def _field(self, name: str) -> pa.Field | None:
        place = self.schema.get_field_index(name)
        return self.schema.field(place) if place >= 0 else None

    def _spelt(self, name: str, column: pa.Array) -> pa.Array:
        field = self._field(name)
        if field is None or not pa.types.is_dictionary(field.type):
            return column
        dictionary = self.no_rows.column(name).dictionary
        if not _is_text(dictionary.type) or len(dictionary) > _LONG or dictionary.null_count:
            return dictionary.take(column)
        return _categories(column, dictionary, field.type)

    def _restored(self, field: pa.Field, column: pa.Array) -> pa.Array:
        if pa.types.is_dictionary(field.type):
            return _coded(column, self.no_rows.column(field.name).dictionary, field.type)
        return column if column.type == field.type else column.cast(field.type)


def codes_in(values: pa.Array, dictionary: pa.Array) -> pa.Array:
    """Where each value stands in a dictionary, null where it is null or not there."""
    return pc.index_in(values, value_set=dictionary, skip_nulls=True)


def _coded(values: pa.Array, dictionary: pa.Array, kind: pa.DataType) -> pa.DictionaryArray:
    """Categories of one dictionary, whatever that of the values is."""
    if pa.types.is_null(values.type):
        return _categories(pa.nulls(len(values), kind.index_type), dictionary, kind)
    if pa.types.is_dictionary(values.type):
        codes = codes_in(values.dictionary.cast(dictionary.type), dictionary).take(values.indices)
    else:
        codes = codes_in(values.cast(dictionary.type), dictionary)
    if codes.null_count != values.null_count:
        raise pa.ArrowInvalid("a category that the table does not have")
    return _categories(codes.cast(kind.index_type), dictionary, kind)


def _categories(codes: pa.Array, dictionary: pa.Array, kind: pa.DataType) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(codes, dictionary, ordered=kind.ordered)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
