"""Train a small 3D U-Net to see the boundaries of neurites in the demo, and score it on tissue that it never saw.

python examples/train_demo.py --steps 300 --seed 0 --out train-out

It needs ``emcatalog[torch]`` and MONAI, whose U-Net this is, and no network or GPU. The same arguments give the same
result on the same machine. One line is about the demo, ``demo = ...``: put another entry there, with boxes to train and
to validate on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import intake
import numpy as np
import torch
from monai.networks.nets import UNet
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn.functional import binary_cross_entropy_with_logits

import emcatalog
from emcatalog.torch import GridDataset, SegmentationDataset, loader, stitch

PATCH: Final = (32, 64, 64)
"""What the network learns from, (z, y, x)."""
BATCH: Final = 4
VALIDATION_PATCH: Final = (40, 136, 136)
OVERLAP: Final = (16, 16, 16)
"""Half of it is cut off a prediction on each side, where the network sees no surroundings. Two such patches are 64 and
256 voxels long, as the box is."""
GAP: Final = 8
CAPTION: Final = 16
"""Between and above the panels of a picture, in pixels."""


def training_patches(source: Any, steps: int, seed: int = 0, split: str | None = None) -> SegmentationDataset:
    """Random patches for so many steps: raw, and which voxels are boundaries, with a mask of where that is known."""
    samples = steps * BATCH
    return source.to_torch(PATCH, "boundaries", split=split, mask=True, augment=True, samples=samples, seed=seed)


def validation_patches(source: Any) -> GridDataset:
    """All patches of a box in order, with the same target."""
    return source.to_grid(VALIDATION_PATCH, OVERLAP, "boundaries", mask=True)


def make_net(seed: int = 0) -> UNet:
    """A U-Net that keeps full resolution at its top level (the first stride is 1): boundaries are two voxels wide."""
    torch.manual_seed(seed)
    return UNet(spatial_dims=3, in_channels=1, out_channels=1, channels=(8, 16, 32, 64), strides=(1, 2, 2))


def masked_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy, averaged over the voxels that are known: ``target`` is the boundaries, then their mask."""
    boundaries, valid = target.chunk(2, dim=1)
    return (binary_cross_entropy_with_logits(logits, boundaries, reduction="none") * valid).sum() / valid.sum()


def train(net: torch.nn.Module, batches: Iterable[Any], learning_rate: float = 3e-3) -> list[float]:
    """One step a batch; gives the loss of each."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate)
    losses = []
    for raw, target in batches:
        loss = masked_loss(net(raw), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.inference_mode()
def predict(net: torch.nn.Module, patches: GridDataset) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches (probability of a boundary, then the target if the patches have one; position), for ``stitch``."""
    net.eval()
    for raw, *target, position in loader(patches):
        yield torch.cat([net(raw).sigmoid(), *target], dim=1), position
    net.train()


@dataclass(frozen=True)
class Validation:
    """A box as the network sees it, and as it is: each (z, y, x)."""

    prediction: NDArray[np.float32]
    """Probability of a boundary."""
    boundaries: NDArray[np.float32]
    """1 where there is one."""
    valid: NDArray[np.bool_]
    """Where that is known."""

    @property
    def score(self) -> float:
        """Average precision: 1 is perfect, and guessing gets ``chance``."""
        return average_precision(self.prediction[self.valid], self.boundaries[self.valid])

    @property
    def chance(self) -> float:
        """Share of boundaries."""
        return float(self.boundaries[self.valid].mean())


def validate(net: torch.nn.Module, patches: GridDataset) -> Validation:
    """Predict a whole box. The target is stitched with the prediction: its patches' faces, which are not valid, go."""
    prediction, boundaries, valid = stitch(predict(net, patches), patches)
    return Validation(prediction, boundaries, valid > 0)


def average_precision(scores: NDArray[Any], truth: NDArray[Any]) -> float:
    """Area under the curve of precision over recall, as a sum of steps: no threshold is chosen.

    The same number as scikit-learn's ``average_precision_score``.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.flatnonzero(np.diff(scores[order], append=np.inf))
    hits = np.cumsum(truth[order], dtype=np.int64)[last_of_equals]
    precision, recall = hits / (last_of_equals + 1), hits / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def picture(panels: dict[str, NDArray[Any]], scale: int = 1) -> Image.Image:
    """Planes (y, x) of one size side by side, each below its name: from 0 to 1, or uint8 as it is."""
    height, width = (side * scale for side in next(iter(panels.values())).shape)
    canvas = Image.new("L", (len(panels) * (width + GAP) - GAP, height + CAPTION), 255)
    pen = ImageDraw.Draw(canvas)
    for number, (name, plane) in enumerate(panels.items()):
        grey = plane if plane.dtype == np.uint8 else (np.clip(plane, 0, 1) * 255).astype(np.uint8)
        left = number * (width + GAP)
        pen.text((left, 1), name, fill=0)
        canvas.paste(Image.fromarray(grey).resize((width, height), Image.Resampling.NEAREST), (left, CAPTION))
    return canvas


def middle_planes(source: Any, untrained: Validation, trained: Validation) -> Image.Image:
    """What was seen, what was to be predicted, and what was predicted, in the middle of the box."""
    raw = source.read()["raw"].values
    z = len(raw) // 2
    return picture(
        {
            "raw": raw[z],
            "boundaries": trained.boundaries[z],
            "untrained net": untrained.prediction[z],
            "trained net": trained.prediction[z],
        }
    )


def main(steps: int, seed: int, out: Path) -> tuple[float, float]:
    """Train, and say how much that helped: the scores of the untrained and of the trained net."""
    demo = intake.open_catalog(emcatalog.CATALOG).demo
    dataset = training_patches(demo, steps, seed, split="train")
    (held_out,) = demo.split("val")
    patches, net = validation_patches(held_out), make_net(seed)

    before = validate(net, patches)
    print(f"average precision of the untrained net: {before.score:.3f} (chance: {before.chance:.3f})")
    started = time.perf_counter()
    losses = train(net, loader(dataset, batch_size=BATCH))
    print(f"{steps} steps in {time.perf_counter() - started:.0f} s: loss {losses[0]:.3f} to {losses[-1]:.3f}")
    after = validate(net, patches)
    print(f"average precision of the trained net: {after.score:.3f}")

    out.mkdir(parents=True, exist_ok=True)
    middle_planes(held_out, before, after).save(out / "picture.png")
    unlabelled = held_out.to_grid(VALIDATION_PATCH, OVERLAP)
    stitch(predict(net, unlabelled), unlabelled, out / "boundaries.zarr", overwrite=True)
    print(f"{out / 'picture.png'} shows it; {out / 'boundaries.zarr'} is the prediction, placed as the box is")
    return before.score, after.score


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=300, help="batches to learn from")
    parser.add_argument("--seed", type=int, default=0, help="of the net and of the patches")
    parser.add_argument("--out", type=Path, default=Path("train-out"), help="folder of the picture and the prediction")
    main(**vars(parser.parse_args()))
