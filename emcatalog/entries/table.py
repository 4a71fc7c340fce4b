"""What a catalog file says of tables, and what a caller may ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from emcatalog.entries.common import Arguments, Declared, Size, XyzNm, norm_box
from emcatalog.errors import ArgumentError, suggest
from emcatalog.geometry import NmBox, reverse
from emcatalog.locations import TABLES, Location, StorageOptions, parse_location

ColumnType = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "string",
    "category", "list<int64>",
]  # fmt: skip
"""NumPy's name; ``category`` is what pandas calls a dictionary of strings."""


def _address(url: str) -> str:
    parse_location(url, TABLES)
    return url


_Name = Annotated[str, Field(min_length=1)]


class TableModel(Declared):
    """One table, as far as it can be known without network."""

    url: Annotated[str, AfterValidator(_address)]
    """``feather://gs://bucket/table.feather`` (the Arrow IPC file format), or ``parquet://``."""
    columns: dict[_Name, ColumnType] = Field(min_length=1)
    """Names and types, in the order of the file; releases may have more."""
    rows: Size | None = None
    """How many there are; left out where nobody says."""
    coordinates: tuple[_Name, _Name, _Name] | None = None
    """The columns of x, y and z that a box is held against."""
    voxel_size: XyzNm = (1.0, 1.0, 1.0)
    """What the coordinates are counted in, nm; a number stands for a cube."""
    key: _Name | None = None
    """The column that holds the ids of a volume's instances."""
    order_by: tuple[_Name, ...] = ()
    """Columns of whole numbers by which the local copy is ordered, where there are no coordinates."""
    encoding: str | None = None
    """How columns are stored."""
    stored_bytes: Size | None = None
    """On the remote; left out where nobody says."""
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    """Of the file, in hexadecimal digits; left out where nobody says."""
    storage_options: StorageOptions = StorageOptions()

    @model_validator(mode="after")
    def _columns_are_declared(self) -> TableModel:
        """What is done with a column is said of one that there is."""
        named = {
            "coordinates": self.coordinates or (),
            "order_by": self.order_by,
            "key": (self.key,) if self.key else (),
        }
        for key, names in named.items():
            for name in names:
                if name not in self.columns:
                    raise ValueError(f"{key}: {name!r} is not among the columns.{suggest(name, self.columns)}")
        return self

    @property
    def location(self) -> Location:
        """The address, taken apart."""
        endpoint = self.storage_options.endpoint_url
        found = parse_location(self.url, TABLES)
        return Location(found.format, found.url, endpoint)


class TableArguments(Arguments):
    """Arguments of an ``em_table`` entry."""

    declared: ClassVar[tuple[str, ...]] = ("table",)

    table: TableModel
    """The table."""
    columns: Any = None
    """Names of the columns to read. Default: all."""
    filter: Any = None
    """Rows to read: a mapping of a column to a value, a list of values, or comparisons such as ``{">=": 0.7}``."""
    bbox: Any = None
    """Rows in a box; None is all of them."""
    units: Any = "voxel"
    """Of the box: ``voxel`` or ``nm``."""
    coordinates: Any = None
    """Names of the columns of x, y and z that the box is held against. Default: the table's own."""

    def check(self) -> None:
        """Report what is wrong with a caller's choice at the call, not at the first read.

        Raises:
            ArgumentError: it cannot be used.
        """
        _ = self.chosen, self.conditions, self.box_nm, self.axes
        if self.bbox is not None and self.axes is None:
            raise ArgumentError(
                "this table has no coordinates that a bbox could be held against; name three of its columns with"
                " coordinates=[x, y, z], or leave bbox away"
            )

    @cached_property
    def chosen(self) -> tuple[str, ...] | None:
        """Names of the columns to read, or None for all.

        Raises:
            ArgumentError: no list of names, or an empty one.
        """
        return None if self.columns is None else _names("columns", self.columns)

    @cached_property
    def conditions(self) -> Mapping[str, Any]:
        """What rows are to hold, by column; whether the columns are there is known when the table is opened.

        Raises:
            ArgumentError: not a mapping of names.
        """
        if self.filter is None:
            return {}
        if not isinstance(self.filter, Mapping) or not all(isinstance(name, str) for name in self.filter):
            raise ArgumentError(
                f"filter={self.filter!r:.80} is not a mapping of a column to what it holds, as in"
                ' {"body": [10000, 10001], "conf": {">=": 0.7}}'
            )
        return self.filter

    @cached_property
    def box_nm(self) -> NmBox | None:
        """The box in space, or None for all rows.

        Raises:
            ArgumentError: a box or a unit that cannot be used.
        """
        return norm_box(self.bbox, self.units, reverse(self.table.voxel_size))

    @cached_property
    def axes(self) -> tuple[str, str, str] | None:
        """The columns of x, y and z, or None where there are none.

        Raises:
            ArgumentError: not three names.
        """
        if self.coordinates is None:
            return self.table.coordinates
        x, y, z = _names("coordinates", self.coordinates, _AXES)
        return x, y, z


_AXES: Final = 3


def _names(argument: str, value: object, count: int | None = None) -> tuple[str, ...]:
    """Names in a list, or in a string with commas."""
    given = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    names: list[Any] = list(given) if isinstance(given, (list, tuple)) else []
    known = tuple(dict.fromkeys(names)) if all(isinstance(name, str) and name for name in names) else ()
    if not known or count not in (None, len(known)):
        several = "" if count is None else f"{count} different "
        raise ArgumentError(f"{argument}={value!r:.80} is not a list of {several}names of columns")
    return known
