"""From entries and loose arguments to a dataset: everything that can be wrong is found here, before a worker starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from emcatalog.classes import Classes
from emcatalog.errors import ArgumentError
from emcatalog.geometry import Box, Zyx, zyx
from emcatalog.patches.intensity import norm_raw_transform
from emcatalog.patches.maps import Labels, open_map
from emcatalog.patches.orientation import AS_STORED, orientations, stored_halo
from emcatalog.patches.places import Wanted, find_places, lay_over
from emcatalog.patches.recipe import Recipe
from emcatalog.patches.region import Learned, Region, Source, open_regions
from emcatalog.patches.sampler import Sampler, Uniform
from emcatalog.patches.target import Target, norm_target
from emcatalog.points import TableSource, norm_points
from emcatalog.torch.dataset import SegmentationDataset, whole
from emcatalog.torch.transform import Transform


def open_dataset(
    sources: Source | Sequence[Source],
    patch_shape: Sequence[int],
    target: str | Callable[[Any], Any] | None = "instances",
    *,
    raw: str | None = None,
    labels: str | None = None,
    classes: str | Classes | None = None,
    class_names: Sequence[str] | None = None,
    points: TableSource | None = None,
    radius_nm: float | None = None,
    by: str | None = "kind",
    offsets: Sequence[Sequence[int]] | None = None,
    mask: bool = False,
    halo: bool = False,
    unlabelled: int | None = 0,
    consecutive: bool = False,
    target_dtype: Any = None,
    raw_transform: str | Callable[[Any], Any] | None = "standardize",
    augment: bool = False,
    transform: Transform | None = None,
    samples: int | None = None,
    seed: int = 0,
    min_foreground: float = 0.0,
    within: str | Source | None = None,
    within_labels: Labels = None,
    balance: bool | Sequence[int] = False,
    tries: int = 100,
    return_info: bool = False,
) -> SegmentationDataset:
    """A dataset of patches at random places of one or more entries; reads their metadata, and a map if one is given.

    Args:
        sources: entries with their arguments; each gives one box. Several need the same voxel size.
        patch_shape: (z, y, x) voxels; (1, y, x) gives 2D items (c, y, x).
        target: ``"instances"`` and ``"semantic"`` (ids, int64), ``"binary"``, ``"boundaries"``, ``"affinities"``
            (float32), ``"points"`` (float32, a channel for each kind of point), a function of labels (z, y, x) int64,
            or None for raw alone.
        raw: channel that a network gets. Default: the image.
        labels: channel that it learns. Default: the only one that fits the target.
        classes: for ``target="semantic"`` of instances: what each is, by a column of the entry's tables such as
            ``"superclass"``, or ``source.classes(...)``. 0 is no instance, 1, 2, ... are the classes, -1 is an instance
            of which nobody says what it is (``ignore_index`` of a loss). The dataset's ``target_names`` are theirs.
        class_names: the classes that count, numbered 1, 2, ... in this order. Default: all that the table has. Several
            sources need the same.
        points: for ``target="points"``: an entry of a table such as ``cat.malecns_data.synapse_points``, whose filter
            counts. The points of each source's box are read once, here: ``fetch()`` the table first. The target is 1
            in balls around them, as ``source.paint`` gives it.
        radius_nm: of the balls, nm.
        by: column of the table that says of which kind a point is: a channel each (``target_names``), in the order of
            its categories; None puts all points into one.
        offsets: of affinities, (z, y, x) from a voxel to the one that it is compared with.
        mask: for affinities and boundaries: as many channels again that say where the first ones are valid: neighbours
            in the patch, and labelled. Without it they are 0 there.
        halo: for affinities and boundaries: read the labels around a patch too, so that its faces are valid. Patches
            then keep that distance from the faces of the box.
        unlabelled: id of voxels of which nothing is known; None where 0 is background and known.
        consecutive: number the instances of a patch 1, 2, 3, ...
        target_dtype: ``"uint8"`` or ``"bool"`` of what is 0 or 1 travels in a quarter of the space.
        raw_transform: ``"standardize"``, ``"normalize"``, ``"normalize_percentile"``, a function of (c, z, y, x), or
            None for the stored values as float32.
        augment: turn each patch by a random flip and 90 degree rotation that is exact: axes change places only where
            voxels and patch are as long along both.
        transform: of (raw, target), last; what is random in it is seeded for each sample.
        samples: of an epoch. Default: as many patches as fill the boxes.
        seed: of everything random.
        min_foreground: share of voxels that must be labelled, 0 to 1: be of a class, or in a ball around a point.
        within: only patches whose middle lies in a map: another entry on any grid, such as
            ``cat.malecns_data.rois_brain(resolution=1024)``, or a channel of the sources, of which the coarsest scale
            with 8 voxels along each edge of a patch is taken.
        within_labels: numbers or names of labels of the map. Default: all but 0.
        balance: for classes: the middle of a patch is of each class (but 0) as often; or the classes that count.
        tries: places that are looked at before ``min_foreground`` gives up.
        return_info: end an item with a dictionary that says where the patch lies.

    Raises:
        ArgumentError: an argument that cannot be used; the message says what to change.
        SamplingError: the map has nothing in the box.
        MissingExtraError: what reads tables is not installed.
        TooLargeError: more points than fit in the memory at hand.
        SourceError, CacheError: what is needed cannot be read.
    """
    given = list(sources) if isinstance(sources, Sequence) else [sources]
    if not given:
        raise ArgumentError("there is no source to draw patches from")
    for source in given:
        check_source(source)
    if transform is not None and not callable(transform):
        raise ArgumentError(f"transform={transform!r}: give a function of (raw, target) that gives both, or None")
    shape = norm_patch_shape(patch_shape)
    wanted = norm_target(
        target, shape, offsets=offsets, mask=mask, halo=halo, unlabelled=unlabelled, consecutive=consecutive,
        dtype=target_dtype,
    )  # fmt: skip
    share = _norm_share(min_foreground)
    learned = norm_learned(wanted, labels, classes, class_names, points, radius_nm, by)
    if (share or balance) and not wanted.exists:
        raise ArgumentError("min_foreground= and balance= look at labels, and target=None reads none")
    if balance and learned.points is not None:
        raise ArgumentError("balance= looks at labels, and target='points' has none; min_foreground= counts its balls")
    regions = open_regions(given, raw, learned)
    wanted = wanted if learned.points is None else wanted.with_kinds(regions[0].names)
    turns = orientations(shape, regions[0].cutout.grid.voxel_size_nm) if augment else (AS_STORED,)
    around = stored_halo(wanted.halo, turns)
    firsts = [region.firsts(shape, around) for region in regions]
    sampler = _sampler(regions, given, firsts, shape, within, within_labels, balance)
    recipe = Recipe(
        regions, sampler, shape, wanted, norm_raw_transform(raw_transform), turns, share,
        whole("tries", tries), whole("seed", seed, least=0),
    )  # fmt: skip
    fill = math.ceil(sum(region.cutout.box.voxels for region in regions) / math.prod(shape))
    return SegmentationDataset(
        recipe, fill if samples is None else whole("samples", samples), transform, return_info=return_info
    )


def norm_learned(
    target: Target,
    labels: str | None,
    classes: str | Classes | None,
    class_names: Sequence[str] | None,
    points: TableSource | None,
    radius_nm: float | None,
    by: str | None,
) -> Learned:
    """Check what a target is to be made of; the arguments are those of ``open_dataset``.

    Raises:
        ArgumentError: arguments that do not fit the target, or each other.
    """
    if classes is not None and target.name != "semantic" and target.make is None:
        raise ArgumentError("classes= belong to target='semantic', or to a function of the caller's")
    if not isinstance(classes, (str, Classes, type(None))):
        raise ArgumentError(f"classes={classes!r:.80} is neither the name of a column nor source.classes(column)")
    if class_names is not None and not isinstance(classes, str):
        raise ArgumentError("class_names= are those of a column of a table, which classes= names")
    if target.name == "points":
        if points is None or radius_nm is None:
            raise ArgumentError(
                "target='points' needs points=, an entry such as cat.malecns_data.synapse_points, and radius_nm= of the"
                " balls around them"
            )
        if labels is not None:
            raise ArgumentError("labels= name a channel, and target='points' is made of points=: leave one away")
        return Learned(points=norm_points(points, radius_nm, by))
    if points is not None or radius_nm is not None or by != "kind":
        raise ArgumentError("points=, radius_nm= and by= belong to target='points'")
    # Classes are those of instances, whatever else there is.
    return Learned(target.learns if classes is None else ("instances",), labels, classes, class_names)


def check_source(source: object) -> None:
    """Refuse what is no entry with its arguments.

    Raises:
        ArgumentError: the message says what one looks like.
    """
    if not hasattr(source, "arguments"):
        raise ArgumentError(
            f"{type(source).__name__} is no entry to draw patches from: give one such as cat.malecns(bbox=...)"
        )


def norm_patch_shape(patch_shape: object) -> Zyx:
    """Three edges of a patch.

    Raises:
        ArgumentError: anything else.
    """
    is_list = isinstance(patch_shape, (Sequence, np.ndarray)) and not isinstance(patch_shape, str)
    sides = list(patch_shape) if is_list else []  # type: ignore[call-overload]  # looked at a line above
    if len(sides) != 3 or not all(
        isinstance(side, Integral) and not isinstance(side, bool) and int(side) > 0 for side in sides
    ):
        raise ArgumentError(
            f"patch_shape={patch_shape!r}: give three positive whole numbers (z, y, x); (1, y, x) is 2D"
        )
    return zyx([int(side) for side in sides])


def _norm_share(share: object) -> float:
    if not isinstance(share, Real) or isinstance(share, bool) or not 0 <= float(share) <= 1:  # NaN is in no interval
        raise ArgumentError(f"min_foreground={share!r}: give a share of the voxels of a patch, from 0 to 1")
    return float(share)


def _sampler(
    regions: Sequence[Region],
    sources: Sequence[Source],
    firsts: Sequence[Box],
    patch_shape: Zyx,
    within: str | Source | None,
    within_labels: Labels,
    balance: bool | Sequence[int],
) -> Sampler:
    if within is not None and balance:
        raise ArgumentError("within= and balance= both say where the middle of a patch lies: give one of them")
    if within is None and within_labels is not None:
        raise ArgumentError("within_labels= are labels of a map, which within= names")
    if within is not None:
        opened = [
            open_map(region, source, patch_shape, within, within_labels)
            for region, source in zip(regions, sources, strict=True)
        ]
        if len({one.labels for one in opened}) > 1:
            raise ArgumentError(f"the maps number {within_labels} differently: open a dataset for each, and mix them")
        maps = [
            lay_over(region, one.cutout, first, patch_shape)
            for region, one, first in zip(regions, opened, firsts, strict=True)
        ]
        return find_places(maps, Wanted(opened[0].labels), patch_shape)
    if balance:
        if balance is not True and not isinstance(balance, Sequence):
            raise ArgumentError(f"balance={balance!r}: give True, or a list of the classes that count")
        every = None if regions[0].classes is None else tuple(range(1, len(regions[0].names) + 1))
        wanted = every if balance is True else tuple(whole("balance", each, least=0) for each in balance)
        maps = [
            lay_over(region, region.cutout.of(region.labels or ""), first, patch_shape, region.classes)
            for region, first in zip(regions, firsts, strict=True)
        ]
        return find_places(maps, Wanted(wanted, apart=True), patch_shape)
    return Uniform(firsts, [region.cutout.box.voxels for region in regions])
