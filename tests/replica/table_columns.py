"""Columns of the tables that the male CNS bucket publishes: names, order, types, vocabularies, pandas' notes on them.

    schema = file_schema("synapse_points", "v1.0", rows=1000)   # as in the footer of the published file
    VOCABULARIES["kind"].names                                  # ('PostSyn', 'PreSyn')

Names, order and types are those measured on the release v1.0. The writer is janelia-flyem/flyem-snapshot
(flyem_snapshot/outputs/flat.py and outputs/neurotransmitters.py at b7c8db89). Its syn-points have 41 columns, 18 of
them dictionaries, when the index `point_id`, stored last, is counted; in tbar-neurotransmitters `point_id` is the first
of 17 columns, because that table alone is written after `reset_index()`.

Not confirmed: the order of columns inside the group of the optic lobes; the types of `superprimary_label`,
`subprimary_label` and the labels of columns and layers (the narrowest that hold them, as the writer chooses); which
dictionaries of syn-points are ordered (`major` and `primary` are in tbar-neurotransmitters); most names inside
`subprimary` and `superprimary`, whose numbers are the published ones. The columns of v0.9 have not been measured: here
it lacks one column of two tables, because releases add columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

# --- vocabularies


@dataclass(frozen=True)
class Vocabulary:
    """The categories of a column."""

    names: tuple[str, ...]
    ordered: bool = False

    @property
    def type(self) -> pa.DataType:
        """With codes as wide as pandas makes them."""
        return pa.dictionary(pa.int8() if len(self.names) < 127 else pa.int16(), pa.string(), self.ordered)


UNSPECIFIED = "<unspecified>"
"""Code 0 of every vocabulary of regions, and label 0."""


def _words(text: str, by: str | None = None) -> tuple[str, ...]:
    return tuple(text.split(by))


STATUS = Vocabulary(
    _words(
        "Unimportant, Glia, Hard to trace, Orphan-artifact, Orphan, Orphan hotknife, Putative Leaves, Out of scope, "
        "Not examined, , 0.5assign, Anchor, Cleaved Anchor, Will be merged, Partially traced, Sensory Anchor, "
        "Cervical Anchor, Soma Anchor, Examined Soma Anchor, Primary Anchor, Leaves, PRT Orphan, Reviewed, "
        "Prelim Roughly traced, RT Hard to trace, RT Orphan, Roughly traced, Traced in ROI, Traced, Finalized",
        by=", ",
    ),
    ordered=True,
)
"""From the least to the most complete."""

MAJOR = (UNSPECIFIED, "CentralBrain", "Optic(L)", "Optic(R)", "CV", "VNC")
_SUPER = {
    "": ("AL(L)", "AL(R)", "GNG", "SCL(L)", "SCL(R)", "LH(L)", "LH(R)", "PED(L)", "PED(R)", "CentralBrain-unspecified"),
    "CX": ("AB(L)", "AB(R)", "EB", "FB", "NO", "PB"),
    "INP": ("IB", "ICL(L)", "ICL(R)", "ATL(L)", "ATL(R)", "CRE(L)", "CRE(R)"),
    "LX(L)": ("BU(L)", "LAL(L)"),
    "LX(R)": ("BU(R)", "LAL(R)"),
    "MB(L)": ("CA(L)", "a'L(L)", "aL(L)", "b'L(L)", "bL(L)", "gL(L)"),
    "MB(R)": ("CA(R)", "a'L(R)", "aL(R)", "b'L(R)", "bL(R)", "gL(R)"),
    "PENP": ("CAN(L)", "CAN(R)", "FLA(L)", "FLA(R)", "PRW", "SAD"),
    "SNP(L)": ("SIP(L)", "SLP(L)", "SMP(L)"),
    "SNP(R)": ("SIP(R)", "SLP(R)", "SMP(R)"),
    "VLNP(L)": ("AOTU(L)", "AVLP(L)", "PLP(L)", "PVLP(L)", "WED(L)"),
    "VLNP(R)": ("AOTU(R)", "AVLP(R)", "PLP(R)", "PVLP(R)", "WED(R)"),
    "VMNP": tuple(f"{name}({side})" for name in ("EPA", "GOR", "IPS", "SPS", "VES") for side in "LR"),
}
_CORD = _words(
    "HTct(UTct-T3) LegNp(T1) LegNp(T2) LegNp(T3) NTct(UTct-T1) Ov WTct(UTct-T2) mVAC(T1) mVAC(T2) mVAC(T3) ADMN AbN1 "
    "AbN2 AbN3 AbN4 AbNT CvN DMetaN DProN MesoAN MesoLN MetaLN PDMN PrN ProAN ProCN ProLN VProN"
)
"""Neuropils and nerves of the nerve cord that there are two of."""
PRIMARY_OF_MAJOR: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        UNSPECIFIED: (UNSPECIFIED,),
        "CentralBrain": tuple(name for names in _SUPER.values() for name in names),
        "Optic(L)": ("ME(L)", "LO(L)", "LOP(L)", "AME(L)", "LA(L)", "Optic-unspecified(L)"),
        "Optic(R)": ("ME(R)", "LO(R)", "LOP(R)", "AME(R)", "LA(R)", "Optic-unspecified(R)"),
        "CV": ("CV-unspecified", "CRN"),
        "VNC": (
            *("ANm", "IntTct", "LTct", "VNC-unspecified"),
            *(f"{name}({side})" for name in _CORD for side in "LR"),
        ),
    }
)
"""Regions by the part of the nervous system that they belong to, in the order of `MAJOR`."""
PRIMARY = tuple(name for names in PRIMARY_OF_MAJOR.values() for name in names)
SUPERPRIMARY = (UNSPECIFIED, *(name for name in _SUPER if name))
SUPER_OF_PRIMARY = MappingProxyType({name: group for group, names in _SUPER.items() for name in names if group})

_GLOMERULI = _words(
    "D DA1 DA2 DA3 DA4l DA4m DC1 DC2 DC3 DC4 DL1 DL2d DL2v DL3 DL4 DL5 DM1 DM2 DM3 DM4 DM5 DM6 DP1l DP1m V VA1d VA1v "
    "VA2 VA3 VA4 VA5 VA6 VA7l VA7m VC1 VC2 VC3l VC3m VC4 VC5 VL1 VL2a VL2p VM1 VM2 VM3 VM4 VM5d VM5v VM6 VM7d VM7v "
    "VP1 VP2 VP3 VP4 VP5 VP6"
)


def _parts() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Regions that have parts, and these."""
    lobes = {"aL": ("a1", "a2", "a3"), "a'L": ("a'1", "a'2", "a'3"), "bL": ("b1", "b2"), "b'L": ("b'1", "b'2")}
    lobes["gL"] = ("g1", "g2", "g3", "g4", "g5", "gL-unspecified")
    for side in "LR":
        yield f"AL({side})", tuple(f"AL-{name}({side})" for name in _GLOMERULI)
        for lobe, names in lobes.items():
            yield f"{lobe}({side})", tuple(f"{name}({side})" for name in names)
        yield f"LAL({side})", (f"GA({side})", f"LAL-unspecified({side})")
        yield f"CRE({side})", (f"ROB({side})", f"RUB({side})", f"CRE-unspecified({side})")
    yield "FB", tuple(f"FBl{layer}" for layer in range(1, 10))
    yield "PB", tuple(f"PB({side}{number})" for side in "LR" for number in range(1, 10))
    yield "NO", ("NO1", "NO2", "NO3")
    yield "EB", ("EBr1", "EBr2r4", "EBr3am", "EBr3d", "EBr3pw", "EBr5", "EBr6", "EB-unspecified")
    yield "SAD", ("AMMC(L)", "AMMC(R)", "SAD-unspecified")
    yield "GNG", ("GNG-unspecified", "PRW-GNG", "SAD-GNG", "CAN-GNG")


PARTS_OF_PRIMARY: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(dict(_parts()))
SUBPRIMARY = (UNSPECIFIED, *(name for names in PARTS_OF_PRIMARY.values() for name in names))

HEX = 30
"""Columns of an optic lobe along each axis of their hexagonal grid; made up."""
OPTIC = MappingProxyType({"medulla": ("ME", 10), "lobula": ("LO", 7), "lobula_plate": ("LOP", 4)})
"""Neuropil and number of layers."""


def _optic() -> Iterator[tuple[str, Vocabulary]]:
    for neuropil, (short, layers) in OPTIC.items():
        for side in "RL":
            columns = (f"{short}_{side}_col_{a:02}_{b:02}" for a in range(1, HEX + 1) for b in range(1, HEX + 1))
            names = (f"{short}_{side}_layer_{layer:02}" for layer in range(1, layers + 1))
            yield f"{neuropil}_{side.lower()}_column", Vocabulary((UNSPECIFIED, *columns), ordered=True)
            yield f"{neuropil}_{side.lower()}_layer", Vocabulary((UNSPECIFIED, *names), ordered=True)


REGIONS: MappingProxyType[str, Vocabulary] = MappingProxyType(
    {
        "major": Vocabulary(MAJOR, ordered=True),
        "primary": Vocabulary(PRIMARY, ordered=True),
        "superprimary": Vocabulary(SUPERPRIMARY, ordered=True),
        "subprimary": Vocabulary(SUBPRIMARY, ordered=True),
        **dict(_optic()),
    }
)
"""Sets of regions that a synapse is looked up in: a column of names, and before it one of labels."""
VOCABULARIES: MappingProxyType[str, Vocabulary] = MappingProxyType(
    {
        "statusLabel": STATUS,
        "status_fine": STATUS,
        "kind": Vocabulary(("PostSyn", "PreSyn")),
        "compartment": Vocabulary(("unknown", "axon", "dendrite", "linker", "cell-body-fiber")),
        "split": Vocabulary(("train", "validation")),
        "primary_post": REGIONS["primary"],
        **REGIONS,
    }
)


def region_labels(region_set: str) -> np.ndarray[Any, Any]:
    """The label of each code; columns of the optic lobes carry their place on the grid as `100 * a + b`."""
    size = len(REGIONS[region_set].names)
    if not region_set.endswith("_column"):
        return np.arange(size, dtype=_label_type(size - 1))
    first, second = np.divmod(np.arange(size - 1), HEX)
    labels = np.concatenate([[0], 100 * (first + 1) + second + 1])
    return labels.astype(_label_type(int(labels.max())))


def _label_type(largest: int) -> type[np.integer[Any]]:
    """The narrowest type, signed rather than not."""
    return next(t for t in (np.int8, np.uint8, np.int16, np.uint16) if largest <= np.iinfo(t).max)


# --- columns

_LISTED = {
    "body_annotations": """assignedOlHex1 f64, assignedOlHex2 f64, bodyId i64, flywireType str, group f64, instance str,
        somaSide str, statusLabel dict, superclass str, type str, vfbId str, hemibrainType str, itoleeHl str,
        supertype str, birthtime str, mancBodyid f64, mancGroup f64, mancType str, subclass str, synonyms str,
        class str, rootSide str, somaNeuromere str, trumanHl str, dimorphism str, matchingNotes str, entryNerve str,
        mancSerial f64, mcnsSerial f64, serialMotif str, fruDsx str, exitNerve str, receptorType str,
        somaLocation list, tosomaLocation list, status str""",
    "body_neurotransmitters": """body i64, cell_type str, total_nt_predictions i32, predicted_nt_confidence f64,
        predicted_nt str, ground_truth str, celltype_total_nt_predictions i32, celltype_predicted_nt str,
        celltype_predicted_nt_confidence f64, consensus_nt str""",
    "body_stats": """body i64, pre i32, post i32, status_fine dict, superclass str, class str, type str, instance str,
        downstream i64, synweight i64, rank i64""",
    "connectome_weights": "body_pre i64, body_post i64, weight i64",
    "synapse_points": "z i32, y i32, x i32, kind dict, conf f32, sv i64, body i64, compartment dict, "
    + ", ".join(f"{name}_label label, {name} dict" for name in REGIONS)
    + ", point_id u64",
    "synapse_partners": """x_pre i32, y_pre i32, z_pre i32, body_pre i64, conf_pre f32, x_post i32, y_post i32,
        z_post i32, body_post i64, conf_post f32, primary_post dict""",
    "tbar_neurotransmitters": """point_id u64, x i32, y i32, z i32, conf f32, sv i64, body i64, major dict,
        primary dict, nt_acetylcholine_prob f32, nt_dopamine_prob f32, nt_gaba_prob f32, nt_glutamate_prob f32,
        nt_histamine_prob f32, nt_octopamine_prob f32, nt_serotonin_prob f32, split dict""",
}
_TYPES = {"i32": pa.int32(), "i64": pa.int64(), "u64": pa.uint64(), "f32": pa.float32(), "f64": pa.float64()}
_TYPES |= {"str": pa.string(), "list": pa.list_(pa.int64())}
LACKING = MappingProxyType({"v0.9": {"body_annotations": "receptorType", "synapse_points": "compartment"}})
"""Columns that a release has not got yet; made up."""
INDEX = MappingProxyType({"synapse_points": "point_id"})
"""Columns that are a table's pandas index."""
NAMES = tuple(_LISTED)
"""The seven tables, by the names of the catalog's entries."""


def published_schema(name: str, version: str = "v1.0") -> pa.Schema:
    """Names and types of a table's columns in a release."""
    lacking = LACKING.get(version, {}).get(name)
    listed = (column.split() for column in _LISTED[name].split(","))
    return pa.schema([(column, _arrow_type(column, kind)) for column, kind in listed if column != lacking])


def _arrow_type(column: str, kind: str) -> pa.DataType:
    if kind == "dict":
        return VOCABULARIES[column].type
    if kind == "label":
        return pa.from_numpy_dtype(region_labels(column.removesuffix("_label")).dtype)
    return _TYPES[kind]


def file_schema(name: str, version: str, rows: int, columns: Sequence[str] | None = None) -> pa.Schema:
    """The schema that `feather.write_feather` gives a frame of so many rows, with pandas' notes.

    Args:
        name: The table.
        version: The release.
        rows: Of the table; pandas notes down where a plain index ends.
        columns: Only these, in published order.
    """
    published = published_schema(name, version)
    kept = [field for field in published if columns is None or field.name in columns]
    schema = pa.schema(kept)
    frame = pd.DataFrame({field.name: _empty(field) for field in kept})
    index = INDEX.get(name)
    if index in frame:
        return pa.Table.from_pandas(frame.set_index(index), schema=schema).schema
    noted = pa.Table.from_pandas(frame, schema=schema).schema
    notes = json.loads(noted.metadata[b"pandas"])
    notes["index_columns"] = [{"kind": "range", "name": None, "start": 0, "stop": rows, "step": 1}]
    return noted.with_metadata({b"pandas": json.dumps(notes).encode()})


def _empty(field: pa.Field) -> pd.Series:
    """A column without rows that pandas describes as it would one with rows."""
    if pa.types.is_dictionary(field.type):
        vocabulary = VOCABULARIES[field.name]
        return pd.Series(pd.Categorical([], categories=vocabulary.names, ordered=vocabulary.ordered))
    dtype = object if field.type in (_TYPES["str"], _TYPES["list"]) else field.type.to_pandas_dtype()
    return pd.Series([], dtype=dtype)
