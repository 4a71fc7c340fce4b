"""Training from a server into an empty mirror: each chunk is asked for once, and by whom it is needed alone."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emcatalog.errors import NotCachedError, SourceUnavailableError
from emcatalog.phantom import make_phantom
from emcatalog.torch import SegmentationDataset, loader
from tests.conftest import BBox, ServeAs, place
from tests.replica.malecns import ROIS, build_malecns, build_rois
from tests.replica.precomputed import build_precomputed
from tests.replica.server import serve
from tests.replica.wire import Server
from tests.test_fetch import assert_clear
from tests.test_torch_dataset import Pair, assert_same, build_pair, numbers

SHAPE = (48, 40, 33)
CHUNK = 16
PATCH = (6, 8, 10)
SAMPLES = 16
VOXELS = "*/8_8_8/*"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """27 chunks of the image and 27 of labels, each in a file."""
    return build_pair(tmp_path_factory.mktemp("numbered"), numbers(SHAPE))


@pytest.fixture
def server(built: Pair) -> Iterator[Server]:
    """Them on a server, each request with its path."""
    with serve(built.url.removeprefix("file://")) as server:
        yield server


@pytest.fixture
def pair(built: Pair, server: Server) -> Pair:
    """The same volume, as the server has it."""
    return Pair(server.url, built.raw, built.labels)


def make(pair: Pair, **arguments: Any) -> SegmentationDataset:
    """Samples that need some of the chunks, and many of them several times."""
    source = pair.source(**arguments)
    return source.to_torch(PATCH, raw_transform=None, augment=True, samples=SAMPLES, return_info=True)


def chunks_of(bbox: Sequence[int]) -> set[str]:
    """Names of the files of chunks that a box touches."""
    ends = zip(bbox[::2], bbox[1::2], reversed(SHAPE), strict=True)
    axes = [
        [f"{at}-{min(at + CHUNK, size)}" for at in range(first // CHUNK * CHUNK, end, CHUNK)]
        for first, end, size in ends
    ]
    return {"_".join(names) for names in itertools.product(*axes)}


def voxels_asked(server: Server) -> Counter[str]:
    """Paths of chunks, and how often each was asked for."""
    return Counter(record.path for record in server.requests if "/8_8_8/" in record.path)


def boxes(batches: Sequence[Any]) -> list[list[int]]:
    """Of all samples."""
    return [info["bbox"] for batch in batches for info in batch[-1]]


class TestFiles:
    """A volume whose chunks are files."""

    @pytest.mark.parametrize("workers", [0, 4])
    def test_the_first_epoch_asks_for_each_chunk_once(self, pair: Pair, server: Server, workers: int) -> None:
        server.latency_s = 0.01
        batches = list(loader(make(pair), 2, workers))
        asked = voxels_asked(server)
        needed = set().union(*map(chunks_of, boxes(batches)))
        assert len(needed) < 27
        assert {*asked} == {f"/{volume}/8_8_8/{name}" for volume in ("raw", "labels") for name in needed}
        assert max(asked.values()) == 1

    def test_the_second_asks_nobody(self, pair: Pair, server: Server) -> None:
        reader = loader(make(pair), 2, 4)
        first = list(reader)
        server.clear()
        server.fail("*", 500)
        reader.set_epoch(0)
        for some, others in zip(reader, first, strict=True):
            assert_same(some, others)
        assert server.requests == []

    def test_another_epoch_asks_for_what_is_new(self, pair: Pair, server: Server) -> None:
        reader = loader(make(pair), 2, 4)
        before = set().union(*map(chunks_of, boxes(list(reader))))
        server.clear()
        after = set().union(*map(chunks_of, boxes(list(reader))))
        assert {path.rpartition("/")[2] for path in voxels_asked(server)} == after - before
        assert 0 < len(after - before) < len(after)

    def test_offline_afterwards(self, pair: Pair, server: Server) -> None:
        first = list(loader(make(pair), 2, 4))
        server.clear()
        reader = loader(make(pair, offline=True), 2, 4)
        for some, others in zip(reader, first, strict=True):
            assert_same(some, others)
        assert server.requests == []

    def test_offline_before(self, pair: Pair, server: Server) -> None:
        with pytest.raises(NotCachedError, match="never opened"):
            make(pair, offline=True)
        assert make(pair)[0][0].shape == (1, *PATCH)
        server.clear()
        lacking = make(pair, offline=True)
        lacking.set_epoch(1)
        with pytest.raises(NotCachedError, match=r"raw lacks \d+ of \d+ chunks .*fetch\(\) the box"):
            list(loader(lacking, 2, 4))
        assert server.requests == []

    def test_two_loaders_at_once(self, pair: Pair, server: Server) -> None:
        """Of training and validation, over the same box."""
        server.latency_s = 0.01
        for some, others in zip(loader(make(pair), 2, 2), loader(make(pair), 2, 2), strict=True):
            assert_same(some, others)
        assert max(voxels_asked(server).values()) == 1

    def test_what_was_fetched_is_there_for_a_read(self, pair: Pair, server: Server) -> None:
        ((raw, target, info),) = itertools.islice(make(pair), 1)
        server.clear()
        dataset = pair.source(bbox=info["bbox"]).read()
        assert sorted(dataset["raw"].values.ravel().tolist()) == sorted(raw.flatten().tolist())
        assert sorted(dataset["labels"].values.ravel().tolist()) == sorted(target.flatten().tolist())
        assert server.requests == []


class TestFailure:
    """A server that does not give one chunk."""

    NAME = "16-32_16-32_16-32"
    """In the middle of the volume."""

    @pytest.mark.parametrize("workers", [0, 4])
    def test_of_one_chunk(self, built: Pair, pair: Pair, server: Server, workers: int) -> None:
        server.fail(f"/raw/8_8_8/{self.NAME}", 500)
        dataset = make(pair)
        needs = [self.NAME in chunks_of(box) for box in boxes(list(loader(make(built), 2, 0)))]
        failing, others = ([index for index in range(SAMPLES) if needs[index] == needed] for needed in (True, False))
        assert len(list(loader(dataset, 1, workers, sampler=others))) == len(others) > 0
        with pytest.raises(SourceUnavailableError) as caught:
            list(loader(dataset, 1, workers, sampler=failing[:1]))
        words = (f"{server.url}/raw", "x 16..32, y 16..32, z 16..32", "ask again later")
        assert_clear(caught.value, ConnectionError, *words)
        with pytest.raises(SourceUnavailableError):
            list(loader(dataset, 2, workers))
        server.heal()
        assert len(list(loader(dataset, 1, workers))) == SAMPLES

    def test_of_one_answer(self, pair: Pair, server: Server) -> None:
        """It is asked again, and nobody hears of it."""
        server.fail(f"/raw/8_8_8/{self.NAME}", 503, times=1)
        assert len(list(loader(make(pair), 2, 4))) == SAMPLES // 2
        assert voxels_asked(server)[f"/raw/8_8_8/{self.NAME}"] == 2


class TestShards:
    """The shipped entry malecns, whose chunks lie in shards."""

    BOX: BBox = place(0, 128, 0, 128, 0, 128)

    def test_bytes_of_the_first_epoch_and_of_the_second(self, male_cns: Server, catalog: Any, tmp_path: Path) -> None:
        catalog.malecns(bbox=self.BOX, cache_dir=str(tmp_path / "fetched")).fetch()
        once = male_cns.sent("*.shard")
        male_cns.clear()
        reader = loader(catalog.malecns(bbox=self.BOX).to_torch((32, 40, 48), samples=40, return_info=True), 2, 4)
        male_cns.latency_s = 0.005
        first = list(reader)
        assert 0.9 * once < male_cns.sent("*.shard") < 1.1 * once
        male_cns.clear()
        reader.set_epoch(0)
        for some, others in zip(reader, first, strict=True):
            assert_same(some, others)
        assert male_cns.requests == []


class TestMap:
    """Patches in a map alone."""

    def test_asks_for_the_map_and_then_for_what_is_in_it(self, built: Pair, tmp_path: Path) -> None:
        """The map's voxels are four times as long; its label 5 lies in the first chunk of the image."""
        regions = np.zeros([side // 4 for side in SHAPE], np.uint32)
        regions[:4, :4, :4] = 5
        regions[8:, 8:, :] = 6
        folder = tmp_path / "source"
        build_precomputed(folder / "regions", regions, resolution=(32, 32, 32), chunk=(4, 4, 4))
        for name in ("raw", "labels"):
            (folder / name).symlink_to(Path(built.url.removeprefix("file://")) / name)
        with serve(folder) as server:
            pair = Pair(server.url, built.raw, built.labels)
            volumes = {
                **pair.source().arguments.model_dump()["volumes"],
                "regions": {
                    "url": f"precomputed://{server.url}/regions",
                    "kind": "semantic",
                    "dtype": "uint32",
                    "voxel_size": 32,
                    "source": "a test",
                },
            }
            source = pair.source(volumes=volumes, channels=["raw", "labels"])
            options = {"within": "regions", "within_labels": [5], "samples": 40, "return_info": True}
            dataset = source.to_torch(PATCH, **options)
            assert voxels_asked(server) == {}
            asked = Counter(record.path for record in server.requests if "/32_32_32/" in record.path)
            assert max(asked.values()) == 1
            batches = list(loader(dataset, 2, 4))
            for box in boxes(batches):
                assert max(a + side // 2 for a, side in zip(box[::2], reversed(PATCH), strict=True)) < 16
            needed = set().union(*map(chunks_of, boxes(batches)))
            assert {path.rpartition("/")[2] for path in voxels_asked(server)} == needed
            assert len(needed) <= 8

    def test_neuropils_of_male_cns(self, serve_as: ServeAs, catalog: Any, tmp_path: Path) -> None:
        tissue = make_phantom((64, 64, 64), seed=3)
        box = ((20500, 20564), (40500, 40564), (40930, 40994))
        build_malecns(tmp_path / "bucket", box, tissue.raw, tissue.labels, versions=["v0.9"], scales=1)
        build_rois(tmp_path / "bucket")
        server = serve_as("gs://flyem-male-cns", tmp_path / "bucket")
        source = catalog.malecns(bbox=(40930, 40994, 40500, 40564, 20500, 20564))
        dataset = source.to_torch(
            PATCH, within=catalog.malecns_data.rois_brain, within_labels="AL-R", samples=20, return_info=True
        )
        assert server.count("*.shard") == 0
        assert 0 < server.count("*/rois/fullbrain-roi-v4/256_256_256/*") <= 4
        for _, _, info in map(dataset.__getitem__, range(20)):
            x, y, z = ((a + side // 2) // 32 for a, side in zip(info["bbox"][::2], reversed(PATCH), strict=True))
            assert ROIS[0].labels.cut(((z, z + 1), (y, y + 1), (x, x + 1))).item() == 2


def test_a_map_by_name_is_as_coarse_as_a_patch_allows(male_cns: Server, catalog: Any) -> None:
    """Of 32 x 64 x 64 voxels of 8 nm an eighth is 32 nm and more: nothing finer of the map is read."""
    source = catalog.malecns(bbox=place(0, 160, 0, 160, 0, 160))
    source.to_torch((32, 64, 64), target=None, within="labels")
    shards = {record.path for record in male_cns.requests if "/segmentation/" in record.path}
    assert {path.split("/")[-2] for path in shards if path.endswith(".shard")} == {"32_32_32"}
