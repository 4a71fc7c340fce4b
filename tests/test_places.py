"""Places by what a map says there: only where it says so, each as often, and read from nothing but the map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from emcatalog.drivers.volume import VolumeSource
from emcatalog.errors import ArgumentError, CacheCorruptError, NotCachedError, SourceCorruptError
from emcatalog.geometry import Zyx, zyx
from emcatalog.mirror.cache import NAMES_FILE, Cache
from emcatalog.mirror.inventory import list_mirrors, remove_mirror
from emcatalog.patches.places import MOST_CLASSES, Wanted
from emcatalog.patches.sampler import SamplingError
from emcatalog.settings import load_settings
from emcatalog.torch import SegmentationDataset, open_dataset
from tests.conftest import ServeAs, place
from tests.replica.malecns import ROIS, build_malecns, build_rois
from tests.replica.precomputed import build_precomputed
from tests.replica.wire import Server

LIKELY = 1e-3
"""A draw that is uniform looks less so than this once in a thousand seeds; the seeds here are fixed."""
SIZE = 8
"""Edge of a voxel of the image, nm."""
SHAPE = (20, 24, 150)
"""Of the image, (z, y, x): along x a map of the same voxels has three blocks."""
PATCH = (4, 5, 6)


# --- an image, and maps of it that tell where their labels are


@dataclass(frozen=True)
class Painted:
    """A map: boxes of labels in a volume that is 0 elsewhere."""

    voxel_nm: tuple[int, int, int]
    """(x, y, z)."""
    shape: Zyx
    boxes: Sequence[tuple[int, tuple[slice, slice, slice]]]
    """Label, and its voxels (z, y, x) counted from the first that exists."""
    offset: tuple[int, int, int] = (0, 0, 0)
    """First voxel, (x, y, z)."""

    @property
    def labels(self) -> NDArray[np.uint64]:
        """(z, y, x)."""
        labels = np.zeros(self.shape, np.uint64)
        for label, where in self.boxes:
            labels[where] = label
        return labels

    def build(self, folder: Path) -> None:
        build_precomputed(
            folder, self.labels, resolution=self.voxel_nm, voxel_offset=self.offset, encoding="compressed_segmentation"
        )

    def over(self, shape: Zyx, first: Zyx = (0, 0, 0)) -> NDArray[np.int64]:
        """For each voxel of the image the label at its centre; -1 outside the map."""
        own = [
            np.floor((np.arange(a, a + side) + 0.5) * SIZE / length).astype(int) - begin
            for a, side, length, begin in zip(first, shape, self.voxel_nm[::-1], self.offset[::-1], strict=True)
        ]
        inside = [(index >= 0) & (index < side) for index, side in zip(own, self.shape, strict=True)]
        labels = self.labels[np.ix_(*(index.clip(0, side - 1) for index, side in zip(own, self.shape, strict=True)))]
        return np.where(np.logical_and.outer(np.logical_and.outer(*inside[:2]), inside[2]), labels.astype(int), -1)


def at(z: int, y: int, x: int, side: Sequence[int] = (1, 1, 1)) -> tuple[slice, slice, slice]:
    a, b, c = (slice(begin, begin + length) for begin, length in zip((z, y, x), side, strict=True))
    return a, b, c


MAPS = {
    "coarser": Painted((32, 32, 32), (5, 6, 38), [(7, at(2, 3, 20)), (9, at(1, 2, 4, (2, 1, 1)))]),
    "coarser by no whole number": Painted((20, 12, 28), (6, 16, 60), [(7, at(2, 6, 30, (1, 2, 2))), (9, at(3, 5, 9))]),
    "the same, in two blocks": Painted((8, 8, 8), SHAPE, [(7, at(8, 9, 60, (2, 3, 9))), (9, at(10, 10, 100))]),
    "finer": Painted((4, 8, 2), (80, 24, 300), [(7, at(33, 9, 125, (17, 4, 31))), (9, at(30, 4, 61, (8, 8, 8)))]),
    "coarser along z alone": Painted((8, 8, 40), (4, 24, 150), [(7, at(1, 9, 60, (1, 3, 9))), (9, at(2, 5, 5))]),
    "a part, shifted": Painted((24, 24, 24), (3, 4, 30), [(7, at(0, 0, 0, (3, 1, 1))), (9, at(1, 3, 20))], (9, 2, 1)),
    "larger than the image": Painted((32, 32, 32), (9, 9, 60), [(7, at(0, 0, 0, (3, 3, 3)))], (-2, -1, -1)),
}
A_MAP = MAPS["coarser"]


@pytest.fixture
def server(tmp_path: Path, serve_as: ServeAs) -> Server:
    """The image and the maps, in the place of a bucket."""
    folder = tmp_path / "bucket"
    build_precomputed(folder / "em", np.zeros(SHAPE, np.uint8), resolution=(SIZE, SIZE, SIZE))
    for name, painted in MAPS.items():
        painted.build(folder / name.replace(" ", "-"))
    return serve_as("gs://bucket", folder)


def volume(name: str, voxel_nm: Sequence[int], kind: str = "semantic", dtype: str = "uint64") -> dict[str, Any]:
    url = f"precomputed://gs://bucket/{name.replace(' ', '-')}"
    return {"url": url, "kind": kind, "dtype": dtype, "voxel_size": list(voxel_nm), "source": "a test"}


IMAGE = volume("em", (SIZE, SIZE, SIZE), "image", "uint8")


def image(**arguments: Any) -> VolumeSource:
    return VolumeSource(volumes={"raw": IMAGE}, voxel_size=SIZE, **arguments)


def map_of(name: str, **arguments: Any) -> VolumeSource:
    size = MAPS[name].voxel_nm
    return VolumeSource(volumes={"map": volume(name, size)}, voxel_size=list(size), **arguments)


def middles(dataset: SegmentationDataset, count: int, seed: int = 0) -> list[tuple[int, Zyx]]:
    """Region and middle of drawn patches; no patch is read."""
    rng = np.random.default_rng(seed)
    places = [dataset.recipe.sampler.draw(rng) for _ in range(count)]
    half = [side // 2 for side in dataset.recipe.patch_shape]
    return [(place.region, zyx([a + h for a, h in zip(place.first, half, strict=True)])) for place in places]


def qualifying(labels: NDArray[Any], wanted: Sequence[int]) -> set[Zyx]:
    """Voxels of the image that have a wanted label and are the middle of a patch that lies in it."""
    fits = np.zeros(labels.shape, bool)
    fits[tuple(slice(p // 2, side - p + p // 2 + 1) for p, side in zip(PATCH, labels.shape, strict=True))] = True
    return {zyx(voxel) for voxel in np.argwhere(np.isin(labels, wanted) & fits).tolist()}


def assert_uniform(found: Counter[Any], expected: set[Any]) -> None:
    """Nothing else was drawn, and each as often as any other."""
    assert found.keys() <= expected
    assert chisquare([found[each] for each in sorted(expected)]).pvalue > LIKELY


class TestWithin:
    """``within=`` a map."""

    @pytest.mark.parametrize("wanted", [(7,), (7, 9)], ids=str)
    @pytest.mark.parametrize("name", MAPS)
    def test_every_voxel_that_qualifies_is_the_middle_as_often(
        self, server: Server, name: str, wanted: tuple[int, ...]
    ) -> None:
        dataset = image().to_torch(PATCH, None, within=map_of(name), within_labels=wanted)
        expected = qualifying(MAPS[name].over(SHAPE), wanted)
        assert len(expected) > 20
        drawn = middles(dataset, 8 * len(expected))
        assert_uniform(Counter(middle for _, middle in drawn), expected)

    def test_all_labels_but_0_by_default(self, server: Server) -> None:
        dataset = image().to_torch(PATCH, None, within=map_of("coarser"))
        expected = qualifying(A_MAP.over(SHAPE), (7, 9))
        assert {middle for _, middle in middles(dataset, 30 * len(expected))} == expected

    def test_0_may_be_asked_for(self, server: Server) -> None:
        dataset = image().to_torch(PATCH, None, within=map_of("coarser"), within_labels=0)
        assert {middle for _, middle in middles(dataset, 500)} <= qualifying(A_MAP.over(SHAPE), (0,))

    @pytest.mark.parametrize("labels", [7, [7], (7,), np.int64(7), np.array([7, 7])], ids=repr)
    def test_labels_in_whatever_way_they_are_given(self, server: Server, labels: Any) -> None:
        dataset = image().to_torch(PATCH, None, within=map_of("coarser"), within_labels=labels)
        assert {middle for _, middle in middles(dataset, 200)} <= qualifying(A_MAP.over(SHAPE), (7,))

    def test_a_box_of_the_image(self, server: Server) -> None:
        first, shape = (3, 5, 70), (14, 15, 30)
        box = image(bbox=(70, 100, 5, 20, 3, 17))
        dataset = box.to_torch(PATCH, None, within=map_of("coarser"), within_labels=7)
        expected = {
            zyx([i + a for i, a in zip(middle, first, strict=True)])
            for middle in qualifying(A_MAP.over(shape, first), (7,))
        }
        assert_uniform(Counter(middle for _, middle in middles(dataset, 8 * len(expected))), expected)

    def test_a_box_of_the_map(self, server: Server) -> None:
        """Where the map's own entry ends."""
        dataset = image().to_torch(PATCH, None, within=map_of("coarser", bbox=(0, 38, 0, 6, 2, 5)))
        labels = A_MAP.over(SHAPE)
        labels[:8] = 0
        expected = qualifying(labels, (7, 9))
        assert {middle for _, middle in middles(dataset, 30 * len(expected))} == expected

    def test_boxes_come_in_proportion_to_what_qualifies_in_them(self, server: Server) -> None:
        boxes = [(0, 30, 0, 24, 0, 20), (30, 75, 0, 24, 0, 20), (78, 150, 0, 24, 0, 20)]
        dataset = open_dataset([image(bbox=box) for box in boxes], PATCH, None, within=map_of("coarser"))
        whole = A_MAP.over(SHAPE)
        expected = {
            (number, zyx([z, y, x + x0]))
            for number, (x0, x1, *_) in enumerate(boxes)
            for z, y, x in qualifying(whole[:, :, x0:x1], (7, 9))
        }
        assert {number for number, _ in expected} == {0, 2}
        assert_uniform(Counter(middles(dataset, 8 * len(expected))), expected)

    def test_a_channel_of_the_entry_itself(self, server: Server) -> None:
        same = "the same, in two blocks"
        source = VolumeSource(volumes={"raw": IMAGE, "mask": volume(same, (8, 8, 8), "mask")}, voxel_size=SIZE)
        dataset = source.to_torch(PATCH, None, within="mask")
        expected = qualifying(MAPS[same].over(SHAPE), (7, 9))
        assert_uniform(Counter(middle for _, middle in middles(dataset, 8 * len(expected))), expected)

    def test_a_coarser_channel_of_the_entry_itself(self, server: Server) -> None:
        volumes = {"raw": IMAGE, "mask": volume("coarser", (32, 32, 32), "mask")}
        source = VolumeSource(volumes=volumes, voxel_size=SIZE, align="nearest")
        dataset = source.to_torch(PATCH, None, within="mask", within_labels=7)
        assert {middle for _, middle in middles(dataset, 200)} <= qualifying(A_MAP.over(SHAPE), (7,))

    def test_the_same_places_again(self, server: Server) -> None:
        datasets = [image().to_torch(PATCH, None, within=map_of("coarser"), samples=20) for _ in range(2)]
        first, again = ([one.recipe.begin(3, index).info for index in range(20)] for one in datasets)
        assert first == again
        assert len({str(info["bbox"]) for info in first}) > 10

    def test_nothing_but_the_map_is_asked_for(self, server: Server) -> None:
        dataset = image().to_torch(PATCH, None, within=map_of("the same, in two blocks"), within_labels=7)
        middles(dataset, 50)
        asked = Counter(record.path for record in server.requests if not record.path.endswith("/info"))
        chunk = "/the-same,-in-two-blocks/8_8_8/{}_0-24_0-20"
        assert asked == {chunk.format(along_x): 1 for along_x in ("0-64", "64-128", "128-150")}

    @pytest.mark.parametrize(
        ("within", "labels", "error", "message"),
        [
            ("coarser", [5], SamplingError, r"map has label 5 nowhere .*\(it has 0, 7, 9\): take other labels"),
            ("coarser", [5, -1, 2**70], SamplingError, "map has label 5, -1, 1180591620717411303424 nowhere"),
            ("coarser", [], ArgumentError, "within_labels is empty"),
            ("coarser", "AL-R", ArgumentError, "has no label 'AL-R'; its source names none: give numbers"),
            ("coarser", 7.0, ArgumentError, "within_labels: 7.0 is neither the number nor the name of a label"),
            ("coarser", [True], ArgumentError, "within_labels: True is neither the number nor the name"),
        ],
    )
    def test_labels_that_cannot_be_used(
        self, server: Server, within: str, labels: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            image().to_torch(PATCH, None, within=map_of(within), within_labels=labels)

    @pytest.mark.parametrize(
        ("within", "message"),
        [
            ("rw", r"within='rw': .* has no such channel; there are raw, or give another entry.*Did you mean 'raw'"),
            (5, "within=5 is neither a channel's name nor an entry"),
            (
                VolumeSource(volumes={"raw": IMAGE, "again": IMAGE}, voxel_size=SIZE),
                r"choose one with channels=\['raw'",
            ),
        ],
    )
    def test_what_is_no_map(self, server: Server, within: Any, message: str) -> None:
        with pytest.raises(ArgumentError, match=message):
            image().to_torch(PATCH, None, within=within)

    def test_a_map_of_somewhere_else(self, server: Server) -> None:
        with pytest.raises(SamplingError, match=r"anything but 0 nowhere in the middle of a patch .*\(it has none\)"):
            image(bbox=(120, 150, 0, 24, 0, 20)).to_torch(PATCH, None, within=map_of("a part, shifted"))

    def test_a_map_whose_labels_only_patches_that_stick_out_would_have_in_their_middle(self, server: Server) -> None:
        """The label is in the box, in its last voxel along y."""
        box = image(bbox=(70, 100, 3, 13, 0, 20))
        with pytest.raises(SamplingError, match=r"label 7 nowhere in the middle of a patch of this box \(it has 0\)"):
            box.to_torch((4, 10, 6), None, within=map_of("coarser"), within_labels=7)


def test_labels_are_compared_as_integers_however_large_and_many() -> None:
    """NumPy would compare these in two dtypes, as floats."""
    labels = tuple(number * 2**55 + 1 for number in range(1, 300))
    block = np.array([[[2**55, 2**55 + 1, 2**55 + 2, 2**63 + 1, 2**63]]], np.uint64)
    assert Wanted(labels).mask(block, 0).ravel().tolist() == [False, True, False, True, False]


class TestBalance:
    """``balance=``: each class as often."""

    CLASSES = Painted(
        (SIZE, SIZE, SIZE),
        SHAPE,
        [(1, at(0, 0, 0, (20, 24, 70))), (2, at(9, 9, 100, (3, 3, 4))), (3, at(2, 10, 140, (17, 1, 1)))],
    )
    """One class is a thousand times as large as the others."""

    @pytest.fixture
    def source(self, tmp_path: Path, server: Server) -> VolumeSource:
        self.CLASSES.build(tmp_path / "bucket" / "classes")
        volumes = {"raw": IMAGE, "labels": volume("classes", (SIZE, SIZE, SIZE))}
        return VolumeSource(volumes=volumes, voxel_size=SIZE)

    @pytest.mark.parametrize(("balance", "classes"), [(True, (1, 2, 3)), ([2, 3], (2, 3)), ((0, 3, 8), (0, 3))])
    def test_each_class_is_in_the_middle_as_often(
        self, source: VolumeSource, balance: Any, classes: tuple[int, ...]
    ) -> None:
        dataset = source.to_torch(PATCH, "semantic", balance=balance)
        labels = self.CLASSES.over(SHAPE)
        assert_uniform(Counter(int(labels[middle]) for _, middle in middles(dataset, 600)), set(classes))

    def test_each_place_of_a_class_as_often(self, source: VolumeSource) -> None:
        dataset = source.to_torch(PATCH, "semantic", balance=True)
        labels, drawn = self.CLASSES.over(SHAPE), middles(dataset, 1500)
        for wanted in (2, 3):
            found = Counter(middle for _, middle in drawn if labels[middle] == wanted)
            assert_uniform(found, qualifying(labels, (wanted,)))

    def test_the_image_is_not_asked_for(self, source: VolumeSource, server: Server) -> None:
        middles(source.to_torch(PATCH, "semantic", balance=True), 10)
        assert server.count("/classes/8_8_8/*") == 3
        assert server.count("/em/8_8_8/*") == 0

    def test_a_class_that_is_nowhere(self, source: VolumeSource) -> None:
        with pytest.raises(SamplingError, match=r"labels has label 8, 9 nowhere .*\(it has 0, 1, 2, 3\)"):
            source.to_torch(PATCH, "semantic", balance=[8, 9])

    def test_instances_are_too_many(self, tmp_path: Path, server: Server) -> None:
        ids = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint64) % (MOST_CLASSES + 2)
        build_precomputed(tmp_path / "bucket" / "ids", ids, resolution=(SIZE, SIZE, SIZE))
        volumes = {"raw": IMAGE, "labels": volume("ids", (SIZE, SIZE, SIZE))}
        source = VolumeSource(volumes=volumes, voxel_size=SIZE)
        with pytest.raises(SamplingError, match="labels holds more than 256 different labels: these are instances"):
            source.to_torch(PATCH, "semantic", balance=True)
        assert len(source.to_torch(PATCH, "semantic", balance=[5, 6]))


# --- the regions of male CNS

BRAIN = ROIS[0]
BOX = place(700, 1400, 480, 880, 400, 800)
"""In voxels of 8 nm: with parts of AL-L and AL-R, over borders of the map's chunks along x and z."""
CUBE = (32, 32, 32)
NAMES = "*/segment_properties/info"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``gs://flyem-male-cns`` with regions, and next to nothing of image and neurons."""
    folder = tmp_path_factory.mktemp("flyem-male-cns")
    some = np.ones(CUBE, np.uint8)
    box = ((20000, 20032), (40000, 40032), (40000, 40032))
    build_malecns(folder, box, some, some.astype(np.uint64), versions=["v0.9"], scales=1)
    build_rois(folder)
    return folder


@pytest.fixture
def male_cns(bucket: Path, serve_as: ServeAs) -> Server:
    return serve_as("gs://flyem-male-cns", bucket)


def within_brain(catalog: Any, labels: Any, resolution: int = 256, **arguments: Any) -> SegmentationDataset:
    """Patches of male CNS in some regions of the brain; arguments are those of both entries."""
    regions = catalog.malecns_data.rois_brain(resolution=resolution, **arguments)
    source = catalog.malecns(bbox=BOX, **arguments)
    made: SegmentationDataset = source.to_torch(CUBE, None, within=regions, within_labels=labels)
    return made


def chunks(server: Server) -> list[str]:
    """Which chunks were asked for, each as often as it was."""
    return sorted(record.path for record in server.requests if not record.path.endswith("/info"))


class TestRegionsOfTheBrain:
    """``within=cat.malecns_data.rois_brain``."""

    @pytest.mark.parametrize("resolution", [256, 512, 1024])
    @pytest.mark.parametrize(("labels", "numbers"), [("AL-R", {2}), (["AL-R", 1], {1, 2}), (1, {1}), (None, {1, 2})])
    def test_every_middle_lies_in_the_region(
        self, male_cns: Server, catalog: Any, resolution: int, labels: Any, numbers: set[int]
    ) -> None:
        dataset, step = within_brain(catalog, labels, resolution), resolution // 256
        found = set()
        for _, middle in middles(dataset, 200):
            z, y, x = ((i // (32 * step), i // (32 * step) + 1) for i in middle)
            found.add(int(BRAIN.labels.cut((z, y, x), step).item()))
        assert found == numbers

    def test_only_chunks_of_the_map_are_asked_for_each_once(self, male_cns: Server, catalog: Any) -> None:
        dataset = within_brain(catalog, "AL-R")
        middles(dataset, 50)
        folder = "/rois/fullbrain-roi-v4/256_256_256"
        along = product(("1216-1280", "1280-1344"), ("1216-1280",), ("576-640", "640-704"))
        assert chunks(male_cns) == [f"{folder}/{x}_{y}_{z}" for x, y, z in along]

    def test_names_are_asked_for_once_and_only_where_they_are_needed(self, male_cns: Server, catalog: Any) -> None:
        within_brain(catalog, 2)
        assert male_cns.count(NAMES) == 0
        within_brain(catalog, "AL-R")
        within_brain(catalog, ["AL-L", "AL-R"], 1024)
        assert catalog.malecns_data.rois_brain.label_names() == BRAIN.names
        assert male_cns.count(NAMES) == 1

    def test_offline_afterwards(self, male_cns: Server, catalog: Any) -> None:
        online = middles(within_brain(catalog, "AL-R"), 20)
        male_cns.clear()
        assert middles(within_brain(catalog, "AL-R", offline=True), 20) == online
        assert male_cns.requests == []

    def test_offline_without_the_names(self, male_cns: Server, catalog: Any) -> None:
        within_brain(catalog, 2)
        with pytest.raises(NotCachedError, match="nobody has asked yet what the labels of precomputed://gs://flyem"):
            within_brain(catalog, "AL-R", offline=True)

    def test_names_go_with_the_last_scale_of_the_mirror(self, male_cns: Server, catalog: Any) -> None:
        for resolution in (256, 1024):
            within_brain(catalog, "AL-R", resolution)
        cache = Cache.at(load_settings())
        fine, coarse = (mirror.name for mirror in list_mirrors(cache) if "rois" in mirror.name)
        kept = Path(cache.url, fine).parent / NAMES_FILE
        remove_mirror(cache, fine)
        assert kept.exists()
        remove_mirror(cache, coarse)
        assert not kept.parent.exists()
        male_cns.clear()
        within_brain(catalog, "AL-R")
        assert male_cns.count(NAMES) == 1

    def test_a_name_that_does_not_exist(self, male_cns: Server, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match=r"no label 'ALR'; its labels are AL-L, AL-R, .*Did you mean 'AL-R'\?"):
            within_brain(catalog, ["GNG", "ALR"])

    def test_a_region_that_is_elsewhere(self, male_cns: Server, catalog: Any) -> None:
        with pytest.raises(SamplingError, match=r"rois has label 41 nowhere .*\(it has 0, 1, 2\)"):
            within_brain(catalog, "LH-L")

    def test_a_map_as_fine_as_the_image_is_too_large_to_be_looked_through(self, male_cns: Server, catalog: Any) -> None:
        everything = (0, 94088, 0, 77248, 0, 134576)
        neurons = catalog.malecns_data.segmentation(bbox=everything)
        with pytest.raises(SamplingError, match=r"labels has .* voxels \(x, y, z\) here, too many.*a\s+coarser map"):
            catalog.malecns(bbox=everything).to_torch(CUBE, None, within=neurons)
        assert chunks(male_cns) == []


class TestLabelNames:
    """What a source calls its labels."""

    def test_a_volume_that_names_none_is_asked_once(self, server: Server) -> None:
        for _ in range(2):
            assert map_of("coarser").label_names() == {}
        assert server.count("/coarser/info") == 1

    def test_of_one_channel_among_several(self, male_cns: Server, catalog: Any) -> None:
        with pytest.raises(ArgumentError, match="name one of raw, labels"):
            catalog.malecns.label_names()
        assert catalog.malecns.label_names("labels") == {}

    @pytest.mark.parametrize("text", ["[]", "{", '{"inline": {"ids": ["1"], "properties": [{"type": "label"}]}}'])
    def test_a_document_that_is_none(
        self, bucket: Path, tmp_path: Path, serve_as: ServeAs, catalog: Any, text: str
    ) -> None:
        folder = tmp_path / "rois" / "fullbrain-roi-v4"
        (folder / "segment_properties").mkdir(parents=True)
        (folder / "info").write_text((bucket / BRAIN.path / "info").read_text())
        (folder / "segment_properties" / "info").write_text(text)
        serve_as("gs://flyem-male-cns", tmp_path)
        with pytest.raises(
            SourceCorruptError, match="fullbrain-roi-v4/segment_properties/info does not name the labels"
        ):
            catalog.malecns_data.rois_brain.label_names()

    def test_damaged_in_the_cache(self, male_cns: Server, catalog: Any) -> None:
        catalog.malecns_data.rois_brain.label_names()
        (path,) = Path(load_settings().cache).rglob(NAMES_FILE)
        path.write_text("{")
        with pytest.raises(
            CacheCorruptError, match=f"{NAMES_FILE} is not what was written there; delete it and ask again"
        ):
            catalog.malecns_data.rois_brain.label_names()
        path.unlink()
        assert catalog.malecns_data.rois_brain.label_names() == BRAIN.names
