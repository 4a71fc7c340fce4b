"""``em_volume``: a box of volume data as an Intake source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intake.source.base import Schema

from emcatalog.drivers.progress import chunks_bar
from emcatalog.drivers.source import EntrySource
from emcatalog.errors import ArgumentError, listing

if TYPE_CHECKING:
    import xarray as xr
    from PIL.Image import Image

    from emcatalog.classes import Classes
    from emcatalog.cutout import Cutout
    from emcatalog.describe.page import Description
    from emcatalog.drivers.table import TableSource
    from emcatalog.entries.volume import ChannelModel, VolumeArguments
    from emcatalog.fetch import FetchReport
    from emcatalog.plan import Plan
    from emcatalog.torch import GridDataset, SegmentationDataset


class VolumeSource(EntrySource):
    """A box of one or more channels on one voxel grid, read through the sparse mirror.

    Arguments (all optional; the catalog gives the rest):

    - ``bbox``: ``(x0, x1, y0, y1, z0, z1)`` or ``{"x": [x0, x1], "y": ..., "z": ...}``, half-open
    - ``units``: of the box, ``"voxel"`` (of the entry's nominal voxel size) or ``"nm"``
    - ``resolution``: voxel size to read at in nm, a number or (x, y, z); must exist
    - ``channels``: names of the channels to read
    - ``channel``: index along the axis of channels of a volume that has one, or ``"all"``
    - ``align``: ``"nearest"`` puts channels of other voxel sizes on one grid
    - ``consecutive``: number the instances 1, 2, 3, ...; the ids are then in ``<channel>_ids``, by number
    - ``clip``: cut a box that sticks out down to what exists
    - ``offline``: answer from the mirror alone
    - ``cache_dir``: folder or URL of the mirror
    """

    name = "em_volume"
    container = "xarray"
    arguments: VolumeArguments

    @property
    def channels(self) -> dict[str, ChannelModel]:
        """The channels that a read gives, by name, as the catalog declares them."""
        return self.arguments.chosen

    def plan(self) -> Plan:
        """What a read would fetch: chunks, bytes, memory, already cached. Touches no voxel.

        Raises:
            SourceError: the source's metadata, asked for the first time, cannot be read.
            OutOfBoundsError: the box is not inside the volume.
        """
        return self._cutout().plan()

    def fetch(self, *, progress: bool = True) -> FetchReport:
        """Fill the mirror with what the box lacks. Ask again after an interruption: only the rest is fetched.

        Args:
            progress: show a bar where somebody can see it.

        Raises:
            SourceError: the source failed, after its retries.
            CacheError: the mirror cannot be written.
        """
        return self._cutout().fetch(chunks_bar(self.name) if progress else None)

    def read(self, *, progress: bool = True) -> xr.Dataset:
        """The box in memory, fetched where it is missing.

        Args:
            progress: show a bar where somebody can see it.

        Returns:
            A variable (z, y, x) for each channel, in the source's dtype, or (c, z, y, x) where a volume has several
            channels and not one was chosen; coordinates are voxel centres in nm; attributes give ``voxel_size_nm``,
            ``origin_nm`` (corner), ``bbox`` and ``bbox_nm``, in x, y, z.

        Raises:
            TooLargeError: it would not fit in the memory at hand; nothing was fetched.
            SourceError: the source failed, after its retries.
            CacheError: the mirror cannot be written.
        """
        from emcatalog.dataset import renumber_instances, to_dataset

        cutout = self._cutout()
        dataset = to_dataset(cutout, cutout.read(chunks_bar(self.name) if progress else None), self._citation())
        return renumber_instances(dataset) if self.arguments.consecutive else dataset

    def to_dask(self) -> xr.Dataset:
        """The same Dataset as dask arrays: a block is fetched when it is computed. Can be sent to other processes."""
        from emcatalog.dataset import lazy_arrays, to_dataset

        self._keep_ids("to_dask()")
        cutout = self._cutout()
        return to_dataset(cutout, lazy_arrays(cutout), self._citation())

    def export(self, path: str | Path, *, overwrite: bool = False, progress: bool = True) -> Path:
        """Write the box as a self-contained OME-Zarr 0.5 folder.

        Raises:
            ArgumentError: the path exists.
            SourceError: the source failed, after its retries.
        """
        from emcatalog.export import export

        self._keep_ids("export()")
        bar = chunks_bar(self.name) if progress else None
        return export(self._cutout(), Path(path), self._citation(), overwrite=overwrite, progress=bar)

    def preview(self, path: str | Path | None = None) -> Image:
        """A picture of the three middle planes, the labels beside the image; saved if a path is given."""
        from emcatalog.preview import preview

        picture = preview(self._cutout())
        if path is not None:
            picture.save(path)
        return picture

    def to_torch(
        self,
        patch_shape: Sequence[int],
        target: str | Callable[[Any], Any] | None = "instances",
        *,
        split: str | None = None,
        **options: Any,
    ) -> SegmentationDataset:
        """Patches at random places of the box, as a PyTorch dataset of (raw, target).

        Args:
            patch_shape: (z, y, x) voxels; (1, y, x) gives 2D items.
            target: ``"instances"``, ``"semantic"``, ``"binary"``, ``"boundaries"``, ``"affinities"``, ``"points"``, a
                function of labels (z, y, x), or None for raw alone. ``"semantic"`` of instances takes ``classes=`` a
                column of the entry's tables, as ``annotate``; ``"points"`` takes ``points=`` an entry of a table and
                ``radius_nm=``, as ``paint``, and has a channel for each kind of point.
            split: draw from these boxes of the entry (``splits``), such as ``"train"``, in place of ``bbox``.
            options: of ``emcatalog.torch.open_dataset``: classes, points, radius_nm, offsets, mask, halo, augment,
                samples, seed, min_foreground, within, ...

        Raises:
            ArgumentError: an argument that cannot be used; the message says what to change.
            MissingExtraError: PyTorch is not installed.
        """
        from emcatalog.torch import open_dataset

        return open_dataset([self] if split is None else self.split(split), patch_shape, target, **options)

    def to_grid(
        self,
        patch_shape: Sequence[int],
        overlap: Sequence[int] = (0, 0, 0),
        target: str | Callable[[Any], Any] | None = None,
        *,
        split: str | None = None,
        **options: Any,
    ) -> GridDataset:
        """Every patch of the box once, as a PyTorch dataset of (raw, position) or (raw, target, position).

        Args:
            patch_shape: (z, y, x) voxels.
            overlap: (z, y, x) voxels that neighbours share.
            target: as in ``to_torch``; None for raw alone.
            split: cover this box of the entry (``splits``), such as ``"val"``, in place of ``bbox``.
            options: of ``emcatalog.torch.open_grid``.

        Raises:
            ArgumentError: an argument that cannot be used; the message says what to change.
            MissingExtraError: PyTorch is not installed.
        """
        from emcatalog.torch import open_grid

        boxes = [self] if split is None else self.split(split)
        if len(boxes) > 1:
            raise ArgumentError(f"split {split!r} has {len(boxes)} boxes: take to_grid() of each of split({split!r})")
        return open_grid(boxes[0], patch_shape, overlap, target, **options)

    def classes(self, column: str, names: Sequence[str] | None = None) -> Classes:
        """What each instance is, as the entry's tables say: by id, for ``to_torch(..., classes=...)``.

        Args:
            column: of one of the tables, such as ``"superclass"``.
            names: the classes that count, numbered 1, 2, ... in this order. Default: all that the table has, in the
                order of the alphabet.

        Returns:
            ``names``, and for ids of instances ``names_of(ids)`` and ``of_ids(ids)``.

        Raises:
            ArgumentError: there is no such column or class.
            MissingExtraError: what reads tables is not installed.
            SourceError, CacheError: the table cannot be read.
        """
        from emcatalog.classes import open_classes

        return open_classes(self.arguments, column, names)

    def annotate(self, column: str, *, names: Sequence[str] | None = None, progress: bool = True) -> xr.Dataset:
        """The box with what each instance is: a volume of classes, and the class of every instance in it.

        Args:
            column: of one of the entry's tables, such as ``"superclass"``, ``"type"`` or ``"consensus_nt"``.
            names: the classes that count, as in ``classes``.
            progress: show a bar where somebody can see it.

        Returns:
            ``<column>`` (z, y, x), signed integers: 0 where there is no instance, 1, 2, ... for the classes, -1 for an
            instance of which nobody says what it is; its attribute ``classes`` is the list of their names. And
            ``<column>_of`` (body): the class of every instance in the box by name, ``"unlabelled"`` where nobody says.

        Raises:
            ArgumentError: there is no such column or class, or no channel of instances.
            MissingExtraError: what reads tables is not installed.
            TooLargeError, SourceError, CacheError: as ``read``; or the table cannot be read.
        """
        from emcatalog.dataset import annotate, to_dataset

        name = self._instances()
        instances = self(channels=[name])
        classes = instances.classes(column, names)
        cutout = instances._cutout()
        found = to_dataset(cutout, cutout.read(chunks_bar(self.name) if progress else None), self._citation())
        return annotate(found, name, classes)

    def paint(self, points: TableSource, radius_nm: float, *, by: str | None = "kind") -> xr.Dataset:
        """Points of a table as a target volume: balls around those that lie in the box, or reach into it.

        Args:
            points: an entry with coordinates, such as ``cat.malecns_data.synapse_points``; its filter counts. Once it
                was fetched a box takes milliseconds; before, every coordinate of the table comes over the network.
            radius_nm: of the balls, nm: a voxel is in one if its centre is no farther away.
            by: a column of text or categories of which each value gets a volume of its own (``PreSyn`` and ``PostSyn``
                are apart); None puts all points into one, ``points``.

        Returns:
            A uint8 volume (z, y, x) for each, 1 in balls, on the grid that a read of the box would have. Every category
            that the table has gets one, in their order, whether it occurs in the box or not.

        Raises:
            ArgumentError: a table without coordinates, a column that is not there, a radius that is none.
            MissingExtraError: what reads tables is not installed.
            TooLargeError: the volumes would not fit in the memory at hand.
            SourceError, CacheError: the table cannot be read.
        """
        from emcatalog.dataset import painted
        from emcatalog.points import norm_points, paint_points

        wanted, cutout = norm_points(points, radius_nm, by), self._cutout()
        masks = paint_points(wanted, cutout.grid, cutout.box)
        return painted(cutout, masks, wanted.radius_nm, {**self._citation(), "points": points.name})

    @property
    def splits(self) -> list[str]:
        """Names of the sets of boxes that the entry declares, such as ``train`` and ``val``."""
        return list(self.arguments.splits)

    def split(self, name: str) -> list[VolumeSource]:
        """One source for each box of a split.

        Raises:
            ArgumentError: the entry has no such split.
        """
        boxes = self.arguments.boxes_of(name)
        return [self(bbox=box, units=units) for box, units in boxes]

    def label_names(self, channel: str | None = None) -> dict[int, str]:
        """What the source calls the labels of a channel, by number; empty where it does not say.

        Args:
            channel: its name. Default: the only one.

        Raises:
            ArgumentError: there is no such channel, or several of which none was named.
            SourceError, CacheError: the names cannot be read.
        """
        from emcatalog.cutout_opening import open_label_names

        return open_label_names(self.arguments, self.arguments.one(channel))

    def _instances(self) -> str:
        """Name of the channel of instances.

        Raises:
            ArgumentError: there is none, or several.
        """
        names = [name for name, model in self.channels.items() if model.kind == "instances"]
        if len(names) != 1:
            what = f"several channels of instances: choose one of {listing(names)} with channels=" if names else ""
            raise ArgumentError(f"{self.name} has {what or 'no channel of instances among those that are read'}")
        return names[0]

    def about(self) -> Description:
        """What it is, for a person; asks no network."""
        from emcatalog.describe.volume import describe_volume

        return describe_volume(self.arguments)

    def _cutout(self) -> Cutout:
        from emcatalog.cutout_opening import open_cutout

        return open_cutout(self.arguments)

    def _keep_ids(self, what: str) -> None:
        """Refuse to number instances block by block: each block would begin at 1 again."""
        if self.arguments.consecutive:
            raise ArgumentError(
                f"consecutive=True needs all ids of the box at once, and {what} goes block by block: read() it, or keep"
                " the ids"
            )

    def _get_schema(self) -> Schema:
        dtypes = {name: channel.dtype for name, channel in self.channels.items()}
        cutout = self._cutout()
        return Schema(dtype=dtypes, shape=cutout.box.shape, npartitions=1, extra_metadata={})
