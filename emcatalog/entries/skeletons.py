"""What a catalog file says of skeletons, and what a caller may ask of them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, model_validator

from emcatalog.entries.common import Arguments, Declared, Length, Size
from emcatalog.locations import SKELETONS, Location, StorageOptions, parse_location

_NM: Final = {"nm": 1.0, "um": 1000.0}


def _address(url: str) -> str:
    parse_location(url, SKELETONS)
    return url


class SkeletonsModel(Declared):
    """Skeletons in one folder, as far as they can be known without network."""

    url: Annotated[str, AfterValidator(_address)]
    """``swc://gs://bucket/folder`` of files ``{id}.swc``, or ``precomputed://gs://bucket/folder``."""
    units: Literal["nm", "um", "voxel"] = "nm"
    """What coordinates and radii of SWC files are counted in."""
    voxel_size: Length | None = None
    """Of a voxel, nm, where they are counted in voxels."""
    space: str | None = None
    """The space in which they stand, where it is not that of the volume."""
    count: Size | None = None
    """About how many there are; left out where nobody says."""
    stored_bytes: Size | None = None
    """On the remote; left out where nobody says."""
    storage_options: StorageOptions = StorageOptions()

    @model_validator(mode="after")
    def _voxels_have_a_size(self) -> SkeletonsModel:
        """A length in voxels says nothing without their size, and one in nm needs none."""
        if (self.units == "voxel") != (self.voxel_size is not None):
            raise ValueError("voxel_size goes with units: voxel, and with no others")
        if self.location.format != "swc" and self.units != "nm":
            raise ValueError("precomputed skeletons are in nm")
        return self

    @property
    def location(self) -> Location:
        """The address, taken apart."""
        found = parse_location(self.url, SKELETONS)
        return Location(found.format, found.url, self.storage_options.endpoint_url)

    @property
    def unit_nm(self) -> float:
        """The length of one unit, nm."""
        return self.voxel_size if self.voxel_size is not None else _NM[self.units]


class SkeletonArguments(Arguments):
    """Arguments of an ``em_skeletons`` entry."""

    declared: ClassVar[tuple[str, ...]] = ("skeletons",)

    skeletons: SkeletonsModel
    """Where they are."""
