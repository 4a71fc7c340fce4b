"""``em_skeletons``: skeletons of neurons as an Intake source."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from emcatalog.drivers.progress import items_bar
from emcatalog.drivers.source import EntrySource
from emcatalog.errors import extra

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from emcatalog.describe.page import Description
    from emcatalog.entries.skeletons import SkeletonArguments
    from emcatalog.skeletons.collection import SkeletonReport, Skeletons, StartProgress


class SkeletonSource(EntrySource):
    """Skeletons, by the ids of their neurons; what was read once is kept in the cache.

    Arguments (both optional): ``offline`` (answer from the cache alone) and ``cache_dir`` (its folder).
    """

    name = "em_skeletons"
    container = "python"
    usage = "skeletons are read by the ids of their neurons, as in read([12781]) or to_navis([12781])"
    arguments: SkeletonArguments

    def read(self, ids: int | Iterable[int], *, progress: bool = True) -> dict[int, pd.DataFrame]:
        """A table for each id, in the order asked: one row a node, many files at once.

        Args:
            ids: one id or many.
            progress: show a bar where somebody can see it.

        Returns:
            By id: ``node``, ``kind`` (as SWC numbers them), ``x``, ``y``, ``z`` and ``radius`` in nm (NaN where the
            source has no radius), ``parent`` (-1 for a root).

        Raises:
            ArgumentError: something that is no id.
            SourceMissingError: some do not exist; the message lists all of them, and the others are kept.
            SourceCorruptError: some do not parse; likewise.
            SourceError, CacheError: they cannot be read, after retries.
        """
        return self._skeletons().read(ids, progress=self._bar() if progress else None)

    def to_navis(self, ids: int | Iterable[int], *, progress: bool = True) -> Any:
        """The same as a ``navis.NeuronList``, in nm.

        Raises:
            MissingExtraError: navis is not installed.
            ArgumentError, SourceError, CacheError: as ``read``.
        """
        with extra("navis"):
            import navis  # noqa: F401  # before anything is fetched
        return self._skeletons().to_navis(self.read(ids, progress=progress))

    def fetch(self, ids: int | Iterable[int], *, progress: bool = True) -> SkeletonReport:
        """Keep skeletons in the cache; only those are fetched that are not there.

        Raises:
            ArgumentError, SourceError, CacheError: as ``read``.
        """
        return self._skeletons().fetch(ids, progress=self._bar() if progress else None)

    def list_ids(self) -> NDArray[np.int64]:
        """The ids that there are, sorted; offline those that are in the cache.

        Raises:
            SourceError: the store cannot be listed, or failed, after its retries.
            NotCachedError: offline, and none is in the cache.
        """
        return self._skeletons().list_ids()

    def about(self) -> Description:
        """What it is, for a person; asks no network."""
        from emcatalog.describe.skeletons import describe_skeletons

        return describe_skeletons(self.arguments)

    def _skeletons(self) -> Skeletons:
        with extra("tables"):
            from emcatalog.skeletons.collection import Skeletons

        model = self.arguments.skeletons
        form: Any = model.location.format
        return Skeletons(model.location.url, form, model.unit_nm, model.storage_options, self.arguments.settings)

    def _bar(self) -> StartProgress:
        def start(count: int) -> Any:
            advance = items_bar(self.name, count, "skeleton")
            return lambda done, _: advance(done)

        return start
