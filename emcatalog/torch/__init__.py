"""PyTorch datasets of any entry of a catalog: the only place that imports torch.

train = cat.malecns(bbox=box).to_torch(patch_shape=(64, 128, 128), target="affinities", offsets=[[-1, 0, 0]])
for raw, target in emcatalog.torch.loader(train, batch_size=2, num_workers=4):
    ...
"""

from __future__ import annotations

from emcatalog.errors import MissingExtraError
from emcatalog.patches.sampler import SamplingError

try:
    import torch as _torch  # noqa: F401  # said here once, for all modules below
except ModuleNotFoundError as error:
    raise MissingExtraError("PyTorch is not installed, which training needs: pip install 'emcatalog[torch]'") from error

from emcatalog.torch.dataset import SegmentationDataset
from emcatalog.torch.grid import GridDataset, open_grid
from emcatalog.torch.item import ForkError
from emcatalog.torch.loader import Loader, WorkerError, loader
from emcatalog.torch.mix import MixedDataset, mix
from emcatalog.torch.opening import open_dataset
from emcatalog.torch.stitch import stitch
from emcatalog.torch.transform import on_dicts

__all__ = [
    "ForkError",
    "GridDataset",
    "Loader",
    "MixedDataset",
    "SamplingError",
    "SegmentationDataset",
    "WorkerError",
    "loader",
    "mix",
    "on_dicts",
    "open_dataset",
    "open_grid",
    "stitch",
]
