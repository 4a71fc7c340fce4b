"""From validated arguments to a cutout: scales found, channels put on one grid, the box held against its extent."""

from __future__ import annotations

from collections.abc import Mapping

from emcatalog.cutout import Cutout
from emcatalog.cutout_channel import CutoutChannel
from emcatalog.entries.volume import ChannelModel, VolumeArguments, check_channel
from emcatalog.errors import AlignmentError, ArgumentError, NotCachedError, OutOfBoundsError, listing
from emcatalog.formats.opening import describe_volume, read_label_names
from emcatalog.formats.volume import ArraySpec, VolumeSpec
from emcatalog.geometry import AXES, Box, Grid, NmBox, ZyxNm, format_xyz, reverse, same_size, zyx
from emcatalog.mirror.cache import Cache
from emcatalog.settings import Settings, load_settings


def open_cutout(arguments: VolumeArguments) -> Cutout:
    """Find the scales, the common grid and the box; asks the network only for volumes never opened before.

    Raises:
        ArgumentError: a resolution that a channel does not have, channels that do not align.
        OutOfBoundsError: a box that lies outside the volume, or partly outside without ``clip``.
        SourceError, CacheError: a description that cannot be had.
    """
    settings = _settings(arguments)
    cache = Cache.at(settings)
    size = arguments.resolution_nm
    specs = {name: _find_scale(name, arguments, cache, settings) for name in arguments.chosen}
    reference = _reference(specs, size).grid
    channels = {name: _channel(name, specs[name], reference, arguments) for name in specs}
    _check_channel_index(channels, arguments)
    grid = _shared_grid(reference, channels)
    return Cutout(channels, grid, _clip(arguments, grid), settings)


def open_coarse(arguments: VolumeArguments, name: str, largest_nm: ZyxNm) -> Cutout:
    """One channel of an entry alone, all of it, as coarse as it may be.

    Args:
        arguments: of the entry.
        name: of the channel.
        largest_nm: voxel size, (z, y, x), that it may have at most, if it has scales to choose from.

    Raises:
        SourceError, CacheError: a description that cannot be had.
    """
    settings, model = _settings(arguments), arguments.volumes[name]
    spec = _describe(model, largest_nm, Cache.at(settings), settings, nearest=True).nearest(largest_nm)
    only = None if spec.num_channels is None else arguments.channel_index
    channel = CutoutChannel(model, spec, spec.grid.shift_to(spec.grid), only)
    return Cutout({name: channel}, spec.grid, spec.grid.extent, settings)


def open_label_names(arguments: VolumeArguments, name: str) -> dict[int, str]:
    """What the source calls the labels of a channel, by number; empty where it does not say. Asked for once.

    Raises:
        NotCachedError: offline, and they were never asked for.
        SourceError, CacheError: they cannot be read.
    """
    settings, model = _settings(arguments), arguments.volumes[name]
    cache = Cache.at(settings)
    known = cache.label_names(model.location)
    if known is None:
        if settings.offline:
            raise NotCachedError(f"offline, and nobody has asked yet what the labels of {model.url} are called")
        known = read_label_names(model, settings)
        cache.keep_label_names(model.location, known)
    return known


def _reference(specs: Mapping[str, ArraySpec], size: ZyxNm) -> ArraySpec:
    """The scale whose grid is the cutout's: of the first channel that has the resolution.

    Raises:
        ArgumentError: none has it.
    """
    for spec in specs.values():
        if same_size(spec.grid.voxel_size_nm, size):
            return spec
    there = "; ".join(f"{name} {format_xyz(spec.grid.voxel_size_nm)}" for name, spec in specs.items())
    raise ArgumentError(
        f"no channel has voxels of {format_xyz(size)} nm (x, y, z), on whose grid the others could be put; the nearest"
        f" are {there}"
    )


def _channel(name: str, spec: ArraySpec, reference: Grid, arguments: VolumeArguments) -> CutoutChannel:
    align = reference.nearest_in if arguments.nearest else reference.shift_to
    try:
        alignment = align(spec.grid)
    except AlignmentError as error:
        raise AlignmentError(f"channel {name}: {error}") from error
    only = None if spec.num_channels is None else arguments.channel_index
    return CutoutChannel(arguments.chosen[name], spec, alignment, only)


def _check_channel_index(channels: Mapping[str, CutoutChannel], arguments: VolumeArguments) -> None:
    """What the catalog could not check, since it need not say how many channels a volume has."""
    index, counts = arguments.channel_index, {name: channel.spec.num_channels for name, channel in channels.items()}
    if index is None:
        return
    for name, count in counts.items():
        if count is not None:
            check_channel(name, index, count)
    # Of labels alone nobody asked for a channel: the index is the entry's own, and meant for its image.
    if not any(counts.values()) and set(counts) == set(arguments.volumes):
        raise ArgumentError(f"channel={index}: none of {listing(counts)} has several channels; leave channel away")


def _find_scale(name: str, arguments: VolumeArguments, cache: Cache, settings: Settings) -> ArraySpec:
    model, size = arguments.chosen[name], arguments.resolution_nm
    known = _describe(model, size, cache, settings, nearest=arguments.nearest)
    if arguments.nearest:
        return known.nearest(size)
    try:
        return known.at(size)
    except ArgumentError as error:
        if len(arguments.chosen) == 1:
            raise
        raise ArgumentError(f"{error}; align='nearest' puts it on the grid of the other channels") from error


def _describe(model: ChannelModel, size: ZyxNm, cache: Cache, settings: Settings, *, nearest: bool) -> VolumeSpec:
    """What a volume is; its source is asked where nobody has asked before, or where a scale that is wanted is new."""
    known = cache.volume(model.location)
    if settings.offline and known is None:
        raise NotCachedError(f"offline, and {model.url} was never opened with the cache {cache.url}")
    if known is None or not (settings.offline or nearest or known.has(size)):
        known = describe_volume(model, settings, cache.kept_files(model.location))
        cache.keep_volume(model.location, known)
    return known


def _settings(arguments: VolumeArguments) -> Settings:
    return load_settings(cache_dir=arguments.cache_dir, offline=arguments.offline)


def _shared_grid(reference: Grid, channels: Mapping[str, CutoutChannel]) -> Grid:
    shared: Box | None = None
    for name, channel in channels.items():
        covered = channel.alignment.covered_by(channel.spec.grid.extent)
        overlap = covered if shared is None or covered is None else shared.intersect(covered)
        if overlap is None:
            raise ArgumentError(f"channel {name} has no voxel in common with the others; read it alone")
        shared = overlap
    assert shared is not None, "an entry has at least one channel"
    return Grid(zyx(shared.shape), reference.voxel_size_nm, zyx(shared.begin), reference.origin_nm)


def _clip(arguments: VolumeArguments, grid: Grid) -> Box:
    if arguments.box_nm is None:
        return grid.extent
    asked = grid.from_nm(arguments.box_nm)
    shared = asked.intersect(grid.extent)
    if shared == asked or (shared is not None and arguments.clip):
        return shared
    state = "outside" if shared is None else "partly outside"
    advice = "" if shared is None else "; pass clip=True to read the part inside"
    extent = grid.to_nm(grid.extent)
    raise OutOfBoundsError(
        f"the box {_in_both(arguments.box_nm, arguments)} is {state} what the channels"
        f" {', '.join(arguments.chosen)} cover: {_in_both(extent, arguments)}{advice}"
    )


def _in_both(box: NmBox, arguments: VolumeArguments) -> str:
    """A box in nominal voxels and in nm, first as the caller counts: the wrong unit is the commonest mistake."""
    size = reverse(arguments.voxel_size)
    pairs = zip(AXES, box.begin_nm, box.end_nm, size, strict=True)
    axes = [f"{axis} {begin / edge:.10g}..{end / edge:.10g}" for axis, begin, end, edge in pairs]
    voxels = f"{', '.join(reversed(axes))} voxels"
    first, second = (str(box), voxels) if arguments.units == "nm" else (voxels, str(box))
    return f"{first} (that is {second})"
