"""A volume: what the catalog declares, held against its metadata documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emcatalog.audit.report import NONE, Audit, differences, undeclared
from emcatalog.entries.volume import ChannelModel
from emcatalog.errors import SourceError
from emcatalog.formats.opening import inspect_volume
from emcatalog.formats.volume import VolumeSpec
from emcatalog.geometry import ZyxNm, format_xyz, reverse, same_size
from emcatalog.lock import read_lock
from emcatalog.settings import Settings


def audit_volume(model: ChannelModel, settings: Settings) -> Audit:
    """Ask a source for its metadata and compare; a source that cannot be read is part of the answer.

    Raises:
        SettingsError: the lock file cannot be read.
    """
    lock = read_lock(Path(settings.lock))
    try:
        volume, documents = inspect_volume(model, settings)
    except SourceError as error:
        below = f"{model.location.format}://{model.location.base}/"
        gone = [
            f"{address}, locked on {one.locked}" for address, one in lock.documents.items() if address.startswith(below)
        ]
        expected = model.unconfirmed is not None
        return Audit(model.url, changed=tuple(gone), failure=error, expected_failure=expected)
    changed = [
        f"{address}, locked on {lock.documents[address].locked}"
        for address, document in documents.items()
        if address in lock.documents and lock.documents[address].sha256 != document.sha256
    ]
    declared, found = _declared(model), _found(volume, model)
    return Audit(model.url, differences(declared, found), undeclared(declared, found), tuple(changed), documents)


def _declared(model: ChannelModel) -> dict[str, str]:
    """What the catalog states, as text; what it leaves out is not here."""
    optional = {
        "shape": model.shape and _xyz(model.shape),
        "offset": model.shape and _xyz(model.offset or (0, 0, 0)),
        "scales": model.scales and _sizes(model.resolutions_nm),
        "chunk": model.chunk and _xyz(model.chunk),
        "encoding": model.encoding,
        "num_channels": model.num_channels and str(model.num_channels),
    }
    known = {key: text for key, text in optional.items() if text}
    return {"dtype": model.dtype, "voxel_size": _sizes([reverse(model.voxel_size)]), **known}


def _found(volume: VolumeSpec, model: ChannelModel) -> dict[str, str]:
    finest, sizes = volume.scales[0], [scale.grid.voxel_size_nm for scale in volume.scales]
    declared = model.resolutions_nm
    # But for floating point they may be the same.
    sizes = [next((known for known in declared if same_size(known, size)), size) for size in sizes]
    return {
        "dtype": finest.dtype,
        "voxel_size": _sizes(sizes[:1]),
        "shape": _xyz(tuple(reversed(finest.grid.shape))),
        "offset": _xyz(tuple(reversed(finest.grid.offset))),
        "scales": _sizes(sizes),
        "chunk": _xyz(tuple(reversed(finest.chunk[-3:]))),
        "encoding": finest.encoding,
        "num_channels": str(finest.num_channels or NONE),
    }


def _xyz(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _sizes(sizes: Sequence[ZyxNm]) -> str:
    return "; ".join(map(format_xyz, sizes)) + " nm"
