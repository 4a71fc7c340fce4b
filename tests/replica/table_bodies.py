"""What is known of bodies: their annotations, and how many synapses they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tests.replica.stored import Array
from tests.replica.table_columns import STATUS, VOCABULARIES
from tests.replica.table_world import SIZE_ZYX, Ints, World, below, fraction, noise, psd_numbers, ranges

TRANSMITTERS = ("acetylcholine", "dopamine", "gaba", "glutamate", "histamine", "octopamine", "serotonin")
UNCLEAR = len(TRANSMITTERS)
"""Code of what is not predicted."""
NAMES_OF_TRANSMITTERS = (*TRANSMITTERS, "unclear")

_SUPERCLASSES = {
    "ol_intrinsic": ("Tm", ""),
    "cb_intrinsic": ("CB", "CX"),
    "vnc_intrinsic": ("IN", ""),
    "visual_projection": ("LC", "visual"),
    "vnc_sensory": ("SNta", "mechanosensory_tactile"),
    "cb_sensory": ("ORN_", "olfactory"),
    "ascending_neuron": ("AN", ""),
    "descending_neuron": ("DNp", ""),
    "vnc_motor": ("MNwm", ""),
    "visual_centrifugal": ("LT", ""),
}
"""How types are called, and the class, which many lack."""
_PREFIXES, _CLASSES = zip(*_SUPERCLASSES.values(), strict=True)
_ROLL_UP = {
    **dict.fromkeys(("Roughly traced", "Reviewed", "Prelim Roughly traced", "RT Hard to trace", "Leaves"), "Traced"),
    **dict.fromkeys(("Orphan", "Orphan-artifact", "Orphan hotknife", "Hard to trace"), "Orphan"),
    **dict.fromkeys(("Anchor", "Soma Anchor", "Sensory Anchor", "Partially traced"), "Anchor"),
    "0.5assign": "Assign",
    "Glia": "Glia",
    "Unimportant": "Unimportant",
}
"""The `status` of a `statusLabel`; of others it is null."""
_OF_NEURONS = (*(label for label, status in _ROLL_UP.items() if status == "Traced"), "Out of scope")
_OF_OTHERS = tuple(label for label, status in _ROLL_UP.items() if status != "Traced")
_WITHOUT = 5
"""One in so many annotated bodies has no superclass."""
_RARE: dict[str, tuple[int, str, int]] = {
    "hemibrainType": (160, "hb{}", 90),
    "itoleeHl": (180, "LB{}", 40),
    "supertype": (160, "{}", 400),
    "birthtime": (40, "early", 1),
    "mancType": (110, "IN{:02}A{:03}", 60),
    "subclass": (100, "BI{}", 12),
    "synonyms": (20, "Cachero 2010: aSP-{}", 9),
    "rootSide": (80, "LR", 2),
    "somaNeuromere": (100, "T{}", 3),
    "trumanHl": (90, "{:02}A", 24),
    "dimorphism": (20, "male-specific", 1),
    "matchingNotes": (20, "see note {}, «à/é»", 30),
    "entryNerve": (60, "MetaLN", 1),
    "serialMotif": (20, "cns tiling", 1),
    "fruDsx": (25, "fru_high", 1),
    "exitNerve": (20, "MesoLN", 1),
    "receptorType": (20, "putative_ppk{}", 30),
}
"""Columns of text that are mostly null: how many of 1000 bodies have them, what with, and how many texts there are."""
_RARE_NUMBERS = {
    "assignedOlHex1": (110, 36),
    "assignedOlHex2": (110, 36),
    "mancBodyid": (90, 170_000),
    "mancGroup": (70, 170_000),
    "mancSerial": (25, 12_000),
    "mcnsSerial": (20, 12_000),
}
_LOCATIONS = {"somaLocation": 670, "tosomaLocation": 20}
_FIRST_STREAM = 64
"""Streams of noise from here on are this module's."""


def texts(names: Sequence[str], codes: Ints) -> pa.Array:
    """Strings by their codes; a negative one is null."""
    return pa.array(names, pa.string()).take(pa.array(codes, mask=codes < 0))


def numbers(values: Array, null: Array) -> pa.Array:
    """Floats, some of them null; what stands there is NaN, as from pandas."""
    return pa.array(np.where(null, np.nan, values), from_pandas=True)


def categories(column: str, codes: Array) -> pa.DictionaryArray:
    """A dictionary column by its codes; a negative one is null."""
    vocabulary = VOCABULARIES[column]
    values = pa.array(vocabulary.names, pa.string())
    indices = pa.array(codes.astype(vocabulary.type.index_type.to_pandas_dtype()), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, values, ordered=vocabulary.ordered)


def transmitter(seed: int, bodies: Ints) -> Ints:
    """What bodies release: an index into `TRANSMITTERS`."""
    chance = fraction(noise(seed, _FIRST_STREAM, bodies))
    return np.searchsorted([0.58, 0.61, 0.75, 0.93, 0.96, 0.98], chance, side="right")


# --- annotations


@dataclass(frozen=True)
class Annotations:
    """Of some bodies, whether they have any or not."""

    world: World
    bodies: Ints

    @cached_property
    def place(self) -> Ints:
        """Where bodies stand among the annotated ones; -1 for those that do not."""
        known = self.world.annotated
        place = np.minimum(np.searchsorted(known, self.bodies), len(known) - 1)
        return np.where(known[place] == self.bodies, place, -1)

    @property
    def types(self) -> int:
        """How many types there are."""
        return max(12, len(self.world.annotated) // 14)

    @cached_property
    def type_code(self) -> Ints:
        """Types, -1 where there is none; some bodies with a superclass have no type."""
        code = below(noise(self.world.seed, _FIRST_STREAM + 1, self.bodies), self.types)
        return np.where((self.superclass_code >= 0) & (self.place % 7 != 3), code, -1)

    @cached_property
    def superclass_code(self) -> Ints:
        """Superclasses, which bodies of one type share; -1 where there is none."""
        code = below(noise(self.world.seed, _FIRST_STREAM + 1, self.bodies), self.types) % len(_SUPERCLASSES)
        return np.where((self.place >= 0) & (self.place % _WITHOUT != _WITHOUT - 1), code, -1)

    @cached_property
    def type_names(self) -> list[str]:
        """Of all types."""
        prefixes = _PREFIXES * (self.types // len(_PREFIXES) + 1)
        return [f"{prefix}{code:02}" for code, prefix in enumerate(prefixes[: self.types])]

    @property
    def type(self) -> pa.Array:
        """Cell types."""
        return texts(self.type_names, self.type_code)

    @property
    def superclass(self) -> pa.Array:
        """Null for what is not a neuron."""
        return texts(list(_SUPERCLASSES), self.superclass_code)

    @property
    def class_(self) -> pa.Array:
        """Null for most."""
        named = [name for name in _CLASSES if name]
        code_of = np.array([named.index(name) if name else -1 for name in _CLASSES])
        return texts(named, np.where(self.superclass_code >= 0, code_of[self.superclass_code], -1))

    @property
    def instance(self) -> pa.Array:
        """Type and side."""
        names = [f"{name}_{side}" for name in self.type_names for side in "LRM"]
        return texts(names, np.where(self.type_code >= 0, 3 * self.type_code + np.maximum(self._side, 0), -1))

    @cached_property
    def _side(self) -> Ints:
        chance = fraction(noise(self.world.seed, _FIRST_STREAM + 2, self.bodies))
        side = np.searchsorted([0.355, 0.71, 0.715], chance, side="right")
        return np.where(side < 3, side, -1)

    @cached_property
    def status_code(self) -> Ints:
        """Codes of `STATUS`: that of an empty text for bodies without annotations, -1 for a few with some."""
        bits = noise(self.world.seed, _FIRST_STREAM + 3, self.bodies)
        neurons, others = (np.array([STATUS.names.index(n) for n in names]) for names in (_OF_NEURONS, _OF_OTHERS))
        rare = np.minimum(below(bits, len(neurons)), below(bits, len(neurons), 32))
        code = np.where(self.superclass_code >= 0, neurons[rare], others[below(bits, len(others))])
        code[below(bits, 250, 8) == 0] = -1
        return np.where(self.place >= 0, code, STATUS.names.index(""))


def annotation_columns(world: World) -> dict[str, pa.Array]:
    """The columns of body-annotations; each has a body that it is not null for."""
    bodies = world.annotated
    known = Annotations(world, bodies)
    columns: dict[str, pa.Array] = {
        "bodyId": pa.array(bodies),
        "flywireType": known.type,
        "group": numbers(bodies[known.place // 2 * 2], known.type_code < 0),
        "instance": known.instance,
        "somaSide": texts(("L", "R", "M"), known._side),
        "statusLabel": categories("statusLabel", known.status_code),
        "superclass": known.superclass,
        "type": known.type,
        "vfbId": pa.array([f"VFB_jr{body:06x}" for body in bodies.tolist()], mask=known.superclass_code < 0),
        "class": known.class_,
        "status": texts(list(_ROLL_UP.values()), _rolled_up(known.status_code)),
    }
    kinds: dict[str, Any] = {**_RARE, **_RARE_NUMBERS, **_LOCATIONS}
    for number, (column, kind) in enumerate(kinds.items()):
        bits = noise(world.seed, _FIRST_STREAM + 8 + number, bodies)
        here = below(bits, 1000) < (kind if isinstance(kind, int) else kind[0])
        here[number % len(here)] = True
        columns[column] = _rare(column, bits, here)
    return columns


def _rolled_up(status_code: Ints) -> Ints:
    """Where a status label is in `_ROLL_UP`, or -1."""
    labels = list(_ROLL_UP)
    of_code = np.array([labels.index(name) if name in labels else -1 for name in STATUS.names])
    return np.where(status_code >= 0, of_code[status_code], -1)


def _rare(column: str, bits: NDArray[np.uint64], here: NDArray[np.bool_]) -> pa.Array:
    """A column that is null but for `here`."""
    if column in _LOCATIONS:
        voxels = np.stack([below(bits, length, 8 * axis) for axis, length in enumerate(reversed(SIZE_ZYX))], axis=1)
        return pa.array([row if use else None for row, use in zip(voxels.tolist(), here, strict=True)])
    if column in _RARE_NUMBERS:
        return numbers(below(bits, _RARE_NUMBERS[column][1], 16), ~here)
    _, text, count = _RARE[column]
    names = ["L", "R"] if column == "rootSide" else [text.format(n, n) for n in range(1, count + 1)]
    return texts(names, np.where(here, below(bits, count, 16), -1))


# --- counts


@dataclass(frozen=True)
class Counts:
    """Synapses of a world by body: what weights, statistics and predictions are counted from."""

    world: World

    @cached_property
    def tbar_bodies(self) -> Ints:
        """The body of each T-bar."""
        return np.concatenate([self.world.body(rows, np.zeros_like(rows)) for rows in ranges(self.world.tbars)])

    @cached_property
    def partners(self) -> tuple[Ints, Ints]:
        """The bodies before and behind each synapse."""
        pre, post = np.empty((2, self.world.psds), np.int64)
        for rows in ranges(self.world.psds):
            tbar, rank = psd_numbers(rows)
            pre[rows] = self.tbar_bodies[tbar]
            post[rows] = self.world.body(tbar, rank)
        return pre, post

    @cached_property
    def weights(self) -> tuple[Ints, Ints, Ints]:
        """Pairs of bodies and the number of their synapses, from the strongest pair to the weakest."""
        (pre, pre_code), (post, post_code) = (np.unique(bodies, return_inverse=True) for bodies in self.partners)
        pairs, weight = np.unique(pre_code * len(post) + post_code, return_counts=True)
        order = np.argsort(-weight, kind="stable")
        first, second = np.divmod(pairs[order], max(1, len(post)))
        return pre[first], post[second], weight[order]

    @cached_property
    def stats(self) -> tuple[Ints, Ints, Ints, Ints]:
        """All bodies that have synapses, the most connected first, with T-bars, PSDs, and PSDs of their T-bars."""
        before, behind = self.partners
        bodies = np.unique(np.concatenate([self.tbar_bodies, behind]))
        pre, post, downstream = (
            np.bincount(np.searchsorted(bodies, these), minlength=len(bodies))
            for these in (self.tbar_bodies, behind, before)
        )
        order = np.argsort(-(post + downstream), kind="stable")
        return bodies[order], pre[order], post[order], downstream[order]
