"""A folder of skeletons, one file each or packed in shards: read by id, many at once, and kept as they are stored."""

from __future__ import annotations

import operator
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import tensorstore as ts
from numpy.typing import NDArray

from emcatalog.errors import (
    ArgumentError,
    CacheError,
    NotCachedError,
    SourceCorruptError,
    SourceError,
    SourceMissingError,
    listing,
)
from emcatalog.locations import StorageOptions, apply_mirrors, url_folder
from emcatalog.mirror.cache import KEPT
from emcatalog.objects import list_objects
from emcatalog.settings import Settings, load_settings
from emcatalog.skeletons import skeleton
from emcatalog.skeletons.kept import KeptFiles
from emcatalog.skeletons.precomputed import INFO, SkeletonInfo, parse_info, parse_precomputed
from emcatalog.skeletons.swc import parse_swc
from emcatalog.stores import ObjectReader, make_store, source_errors, wait

IN_FLIGHT: Final = 64
"""Skeletons that are asked for at one time; of a web server TensorStore asks half as many at once."""

LARGEST_ID: Final = 2**63 - 1
"""Ids stand in tables as int64."""

Progress = Callable[[int, int], None]
"""Called with skeletons and stored bytes, each time some have arrived, or were found not to exist."""
StartProgress = Callable[[int], Progress]
"""Called with the number of skeletons to fetch, where there are any."""

_SUFFIXES: Final = {"swc": ".swc", "precomputed": ""}
_ID: Final = re.compile(r"[1-9]\d*")


@dataclass(frozen=True, slots=True)
class SkeletonReport:
    """What a fetch did."""

    fetched: int
    """Skeletons that came from the source."""
    reused: int
    """Skeletons that were there."""
    fetched_bytes: int
    """Of what came, as it is stored."""
    seconds: float
    """From the first request to the last file."""

    def __str__(self) -> str:
        """One line for a person."""
        size = f"{self.fetched_bytes / 1e6:.1f} MB"
        return f"fetched {self.fetched} skeletons ({size}), reused {self.reused}, in {self.seconds:.1f} s"


@dataclass(frozen=True)
class Skeletons:
    """The skeletons in one folder; nothing is opened yet. Threads and processes may share the cache."""

    url: str
    """Folder, as in the catalog: ``gs://bucket/skeletons-swc``."""
    form: Literal["swc", "precomputed"]
    """How each is stored: ``{id}.swc``, or neuroglancer's ``{id}`` beside an ``info``."""
    unit_nm: float = 1.0
    """The length of one unit of SWC; the other form says it itself."""
    options: StorageOptions = field(default_factory=StorageOptions)
    """How the store is reached."""
    settings: Settings = field(default_factory=load_settings)
    """Cache, mirrors, offline, retries."""

    def read(self, ids: int | Iterable[int], *, progress: StartProgress | None = None) -> dict[int, pd.DataFrame]:
        """A table for each id, in the order asked, fetched where it was not yet: one row a node.

        Columns: ``node``, ``kind`` (as SWC numbers them), ``x``, ``y``, ``z`` and ``radius`` in nm (NaN where the
        source has no radius), ``parent`` (-1 for a root). ``attrs`` has ``body``, ``units`` and ``source``.

        Args:
            ids: one id or many; one that is named twice is given once.
            progress: told of what is fetched.

        Raises:
            ArgumentError: something that is no id.
            SourceMissingError: some do not exist; the message lists them, and the others were fetched and are kept.
            SourceCorruptError: some do not parse; the message lists them, and the others were fetched and are kept.
            SourceError: the source failed, after its retries; what had come is kept.
            NotCachedError: offline, and some were never fetched.
            CacheError: the cache cannot be read or written.
        """
        bodies = norm_ids(ids)
        if not bodies:
            return {}
        lacking = self._lacking(bodies)
        info = self._info()
        fetched = {body: table for body, table, _ in self._fetch(info, lacking, len(bodies), progress)}
        return {body: fetched[body] if body in fetched else self._read_kept(info, body) for body in bodies}

    def fetch(self, ids: int | Iterable[int], *, progress: StartProgress | None = None) -> SkeletonReport:
        """Fetch those that are not in the cache yet, and report what was done.

        Args:
            ids: one id or many.
            progress: told of what is fetched.

        Raises:
            ArgumentError, SourceError, CacheError: as ``read`` does.
        """
        started = time.perf_counter()
        bodies = norm_ids(ids)
        lacking = self._lacking(bodies)
        fetched = self._fetch(self._info(), lacking, len(bodies), progress) if lacking else ()
        sizes = [nbytes for _, _, nbytes in fetched]
        return SkeletonReport(len(sizes), len(bodies) - len(sizes), sum(sizes), time.perf_counter() - started)

    def list_ids(self) -> NDArray[np.int64]:
        """The ids that there are, int64, sorted; offline those that are in the cache.

        Raises:
            SourceError: the store cannot be listed, as a web server cannot, or failed, after its retries.
            NotCachedError: offline, and none is in the cache.
        """
        if self.settings.offline:
            found = self._ids_of(self._kept.names())
            if not len(found):
                raise NotCachedError(
                    f"offline, and no skeleton of {self._base} was ever fetched into {self._kept.folder}; fetch() some"
                    " while there is a network"
                )
            return found
        info = self._info()
        if info is None or info.sharding is None:
            return self._ids_of(entry.name for entry in list_objects(self._base, self.options, self.settings))
        with source_errors(self._base):
            keys = wait(self._open(info).list())
        return np.sort(np.array([int.from_bytes(key, "big") for key in keys], np.int64))

    @staticmethod
    def to_navis(tables: Mapping[int, pd.DataFrame]) -> Any:
        """What ``read`` gave as a ``navis.NeuronList``, in nm.

        Raises:
            MissingExtraError: navis is not installed.
        """
        return skeleton.to_navis(tables)

    # --- what is there

    @property
    def _base(self) -> str:
        return self.url.rstrip("/")

    @property
    def _kept(self) -> KeptFiles:
        return KeptFiles(self.settings.cache_folder / url_folder(self._base, self.options.endpoint_url) / KEPT)

    def _name(self, body: int) -> str:
        return f"{body}{_SUFFIXES[self.form]}"

    def _ids_of(self, names: Iterable[str]) -> NDArray[np.int64]:
        suffix = _SUFFIXES[self.form]
        stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
        numbers = (int(stem) for stem in stems if _ID.fullmatch(stem))
        return np.array(sorted(number for number in numbers if number <= LARGEST_ID), np.int64)

    def _lacking(self, bodies: Sequence[int]) -> list[int]:
        """Those that are not in the cache.

        Raises:
            NotCachedError: offline, and there are some.
        """
        kept = self._kept
        lacking = [body for body in bodies if not kept.has(self._name(body))]
        if lacking and self.settings.offline:
            raise NotCachedError(
                f"offline, and {len(lacking)} of the {len(bodies)} skeletons asked for were never fetched from"
                f" {self._base} into {kept.folder}: {listing(lacking)}; fetch() them while there is a network"
            )
        return lacking

    def _info(self) -> SkeletonInfo | None:
        """The document that precomputed skeletons have, asked for once; None for SWC."""
        if self.form == "swc":
            return None
        what, kept = f"{self._base}/{INFO}", self._kept
        content = kept.read(INFO)
        if content is not None:
            with kept.parsing(INFO):
                return parse_info(content, what)
        if self.settings.offline:
            raise NotCachedError(f"offline, and {what} was never fetched; fetch() skeletons while there is a network")
        try:
            content = ObjectReader(self._open(None), INFO, what).whole()
        except SourceMissingError as error:
            raise SourceMissingError(
                f"{what}: there is none, so that this is no folder of precomputed skeletons; check the address, or"
                " EMCATALOG_MIRRORS"
            ) from error
        info = parse_info(content, what)
        kept.write(INFO, content)
        return info

    def _read_kept(self, info: SkeletonInfo | None, body: int) -> pd.DataFrame:
        name, kept = self._name(body), self._kept
        content = kept.read(name)
        if content is None:
            raise CacheError(f"{kept.folder / name} was deleted while it was asked for; ask again")
        with kept.parsing(name):
            return self._parse(info, body, content)

    def _parse(self, info: SkeletonInfo | None, body: int, content: bytes) -> pd.DataFrame:
        source = f"{self._base}/{self._name(body)}"
        table = parse_swc(content, self.unit_nm, source) if info is None else parse_precomputed(content, info, source)
        table.attrs = {"body": body, "units": "nm", "source": source}
        return table

    # --- the source

    def _open(self, info: SkeletonInfo | None) -> ts.KvStore:
        """The folder, or what its shards hold, by 8 bytes of the id.

        Format: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/sharded.md.
        """
        store = make_store(apply_mirrors(self._base, self.settings.mirrors), self.options, self.settings.retries)
        with source_errors(self._base):
            if info is None or info.sharding is None:
                return store.open()
            shards = {"driver": "neuroglancer_uint64_sharded", "base": store.kvstore, "metadata": info.sharding}
            return ts.KvStore.open(shards, context=store.context).result()

    def _fetch(
        self, info: SkeletonInfo | None, lacking: Sequence[int], asked: int, progress: StartProgress | None
    ) -> Iterator[tuple[int, pd.DataFrame, int]]:
        """Body, table and stored bytes of each; when all are through, the error of those that failed.

        A file is kept when it has parsed, so that what is in the cache does.
        """
        missing: list[int] = []
        broken: dict[int, SourceCorruptError] = {}
        kept = self._kept
        advance = progress(len(lacking)) if progress and lacking else lambda *_: None
        for body, content in self._contents(info, lacking):
            if content is None:
                missing.append(body)
            else:
                try:
                    table = self._parse(info, body, content)
                except SourceCorruptError as error:
                    broken[body] = error
                else:
                    kept.write(self._name(body), content)
                    yield body, table, len(content)
            advance(1, len(content or b""))
        if missing or broken:
            raise self._failure(missing, broken, asked) from next(iter(broken.values()), None)

    def _contents(self, info: SkeletonInfo | None, bodies: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        """The stored bytes of each, in order; None for one that does not exist."""
        if not bodies:
            return
        kvstore, opened = self._open(info), time.time()
        sharded = info is not None and info.sharding is not None
        on_its_way: deque[tuple[int, ts.Future[ts.KvStore.ReadResult]]] = deque()
        try:
            for body in bodies:
                if len(on_its_way) >= IN_FLIGHT:
                    yield self._arrived(*on_its_way.popleft())
                key = body.to_bytes(8, "big") if sharded else self._name(body)
                # A shard's index that was read since need not be asked for again.
                on_its_way.append((body, kvstore.read(key, staleness_bound=opened)))
            while on_its_way:
                yield self._arrived(*on_its_way.popleft())
        finally:
            for _, future in on_its_way:
                future.cancel()

    def _arrived(self, body: int, future: ts.Future[ts.KvStore.ReadResult]) -> tuple[int, bytes | None]:
        with source_errors(f"{self._base}/{self._name(body)}"):
            answer = wait(future)
        return body, answer.value if answer.state == "value" else None

    def _failure(self, missing: Sequence[int], broken: Mapping[int, SourceCorruptError], asked: int) -> SourceError:
        reasons = []
        if missing:
            reasons.append(f"{len(missing)} of the {asked} asked for do not exist: {listing(missing)}")
        if broken:
            first = next(iter(broken.values()))
            reasons.append(
                f"{len(broken)} of the {asked} asked for do not parse: {listing(broken)}; the first: {first}"
            )
        if found := asked - len(missing) - len(broken):
            advice = f"What is good, {found}, is kept; leave the others out, or ask list_ids() for those that exist"
        elif broken:
            advice = "Nothing of them was kept; check the address, or tell the data's owner"
        elif self.form == "swc":
            advice = (
                "Not one is there, and of a folder that is not there a server says the same; check the ids, and the"
                " address, or EMCATALOG_MIRRORS"
            )
        else:
            advice = "Not one is there; check the ids"
        kind = SourceCorruptError if broken else SourceMissingError
        return kind(f"skeletons in {self._base}: {'. '.join(reasons)}. {advice}")


def norm_ids(ids: Any) -> list[int]:
    """One id or many as a list without repetition, in their order; digits in a text are taken, too.

    Raises:
        ArgumentError: something that is no id.
    """
    several = isinstance(ids, Iterable) and not isinstance(ids, (str, bytes)) and getattr(ids, "ndim", 1) > 0
    return list(dict.fromkeys(_norm_id(one) for one in (ids if several else [ids])))


def _norm_id(one: Any) -> int:
    try:
        number = int(one) if isinstance(one, str) and _ID.fullmatch(one) else operator.index(one)
    except TypeError:
        number = 0
    if isinstance(one, (bool, np.bool_)) or not 0 < number <= LARGEST_ID:
        raise ArgumentError(
            f"{one!r:.80} is not the id of a skeleton; ids are whole numbers from 1 on, one or many of them, as in"
            " 12781 or [12781, 556329]"
        )
    return number
