"""``em_volume``: a box of volume data as an Intake source."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intake.source.base import DataSource, Schema

from emcatalog.errors import ArgumentError

if TYPE_CHECKING:
    import xarray as xr
    from PIL.Image import Image

    from emcatalog.cutout import Cutout, StartProgress
    from emcatalog.entries import ChannelModel, VolumeArguments
    from emcatalog.fetch import FetchReport
    from emcatalog.plan import Plan
    from emcatalog.torch import GridDataset, SegmentationDataset


class VolumeSource(DataSource):  # type: ignore[misc]  # Intake has no types
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
    version = "1"
    partition_access = False

    def __init__(self, metadata: dict[str, Any] | None = None, **arguments: Any) -> None:
        """Check the arguments; nothing is opened.

        Raises:
            ArgumentError: an argument that cannot be used.
            CatalogError: a declaration of the catalog that is wrong.
        """
        from emcatalog.entries import norm_arguments  # pydantic, only where an entry is really used

        super().__init__(metadata=metadata)
        self.arguments: VolumeArguments = norm_arguments(arguments)

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
        return self._cutout().fetch(_bar(self) if progress else None)

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
        dataset = to_dataset(cutout, cutout.read(_bar(self) if progress else None), self._about())
        return renumber_instances(dataset) if self.arguments.consecutive else dataset

    def to_dask(self) -> xr.Dataset:
        """The same Dataset as dask arrays: a block is fetched when it is computed. Can be sent to other processes."""
        from emcatalog.dataset import lazy_arrays, to_dataset

        self._keep_ids("to_dask()")
        cutout = self._cutout()
        return to_dataset(cutout, lazy_arrays(cutout), self._about())

    def export(self, path: str | Path, *, overwrite: bool = False, progress: bool = True) -> Path:
        """Write the box as a self-contained OME-Zarr 0.5 folder.

        Raises:
            ArgumentError: the path exists.
            SourceError: the source failed, after its retries.
        """
        from emcatalog.export import export

        self._keep_ids("export()")
        bar = _bar(self) if progress else None
        return export(self._cutout(), Path(path), self._about(), overwrite=overwrite, progress=bar)

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
            target: ``"instances"``, ``"semantic"``, ``"binary"``, ``"boundaries"``, ``"affinities"``, a function of
                labels (z, y, x), or None for raw alone.
            split: draw from these boxes of the entry (``splits``), such as ``"train"``, in place of ``bbox``.
            options: of ``emcatalog.torch.open_dataset``: offsets, mask, halo, augment, samples, seed, min_foreground,
                within, ...

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
        return [self._with(bbox=box, units=units) for box, units in boxes]

    def _with(self, **arguments: Any) -> VolumeSource:
        """This source with other arguments. Intake's own way, ``configure_new``, forgets the entry's parameters."""
        other = type(self)(**{**self._captured_init_kwargs, **arguments})
        other.name, other.description = self.name, self.description
        return other

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

    def __getstate__(self) -> dict[str, Any]:
        """With its name: Intake keeps the arguments alone, and a pickled source would not know what it is."""
        return {**super().__getstate__(), "name": self.name, "description": self.description}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Made again from its arguments."""
        named = {key: state.pop(key) for key in ("name", "description")}
        super().__setstate__(state)
        self.__dict__.update(named)

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

    def _about(self) -> dict[str, str]:
        keys = ("title", "licence", "citation", "doi", "homepage")
        about = {key: str(self.metadata[key]) for key in keys if self.metadata.get(key)}
        return {"entry": self.name, **about}

    def _get_schema(self) -> Schema:
        dtypes = {name: channel.dtype for name, channel in self.channels.items()}
        cutout = self._cutout()
        return Schema(dtype=dtypes, shape=cutout.box.shape, npartitions=1, extra_metadata={})

    def _close(self) -> None:
        """Nothing is kept open between calls."""

    # Intake's base shows YAML in notebooks; our own HTML says more.
    _ipython_display_ = None

    def __repr__(self) -> str:
        """What it is, in a few lines; asks no network."""
        from emcatalog.describe import describe_text

        return describe_text(self.name, self.description, self.metadata, self.arguments)

    def _repr_html_(self) -> str:
        from emcatalog.describe import describe_html

        return describe_html(self.name, self.description, self.metadata, self.arguments)


def _bar(source: VolumeSource) -> StartProgress:
    """A progress bar on standard error where that is a terminal or a notebook."""

    def start(chunks: int, nbytes: int) -> Any:
        if find_spec("ipywidgets") is None:
            from tqdm import tqdm  # tqdm.auto would warn that there are none
        else:
            from tqdm.auto import tqdm
        # A notebook's standard error is no terminal, and somebody looks at it all the same.
        disable = False if "ipykernel" in sys.modules else None
        title = f"{source.name}, {chunks} chunks"
        bar = tqdm(total=nbytes, desc=title, unit="B", unit_scale=True, disable=disable, leave=False)

        def advance(_: int, arrived: int) -> None:
            bar.update(arrived)
            if bar.n >= nbytes:
                bar.close()

        return advance

    return start
