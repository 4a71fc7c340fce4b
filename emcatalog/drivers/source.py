"""What every driver shares: arguments that are checked at once, a page about the entry, a source that can be sent."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from intake.source.base import DataSource, Schema

from emcatalog.errors import ArgumentError

if TYPE_CHECKING:
    from emcatalog.describe.page import Description


class EntrySource(DataSource):  # type: ignore[misc]  # Intake has no types
    """An entry of a catalog that was given its arguments. Nothing is kept open between calls."""

    version = "1"
    partition_access = False

    usage: ClassVar[str] = "read() and to_dask() give all of it"
    """What is called in place of a method of Intake's that this kind of data does not have."""

    def __init__(self, metadata: dict[str, Any] | None = None, **arguments: Any) -> None:
        """Check the arguments; nothing is opened.

        Raises:
            ArgumentError: an argument that cannot be used.
            CatalogError: a declaration of the catalog that is wrong.
        """
        from emcatalog.entries import ARGUMENTS  # pydantic, only where an entry is really used

        super().__init__(metadata=metadata)
        self.arguments: Any = ARGUMENTS[type(self).name].norm(arguments)

    @abstractmethod
    def about(self) -> Description:
        """What it is, for a person; asks no network."""

    def configure_new(self, **arguments: Any) -> Self:
        """This source with other arguments or parameters; those that were given before stay, but for these.

        Intake's own forgets the parameters (a release, say), and renders all templates of the entry each time, which
        takes longer than many a read.

        Raises:
            ArgumentError: an argument that cannot be used.
        """
        entry, asked = self._entry, {**self._asked, **arguments}
        own = [] if entry is None else [each["name"] for each in entry.describe()["user_parameters"]]
        if any(name in arguments for name in own):
            other: Self = entry(**asked)
        else:
            other = type(self)(**{**self._captured_init_kwargs, **arguments})
            other.name, other.description, other.cat = self.name, self.description, self.cat
        other._entry, other._asked = entry, asked
        return other

    __call__ = get = configure_new

    _asked: Mapping[str, Any] = MappingProxyType({})
    """What callers gave, one after the other: values of the entry's parameters, too."""

    def _citation(self) -> dict[str, str]:
        """What whoever uses the data must know."""
        keys = ("title", "licence", "citation", "doi", "homepage")
        about = {key: str(self.metadata[key]) for key in keys if self.metadata.get(key)}
        return {"entry": self.name, **about}

    def __getstate__(self) -> dict[str, Any]:
        """With its name: Intake keeps the arguments alone, and a pickled source would not know what it is."""
        return {**super().__getstate__(), "name": self.name, "description": self.description}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Made again from its arguments."""
        named = {key: state.pop(key) for key in ("name", "description")}
        super().__setstate__(state)
        self.__dict__.update(named)

    def to_dask(self) -> Any:
        """Refuse: not every kind of data is an array or a frame.

        Raises:
            ArgumentError: always; the message says what to call.
        """
        self._refuse()

    def _get_schema(self) -> Schema:
        """What ``discover`` says: nothing, where there is no one array or frame."""
        return Schema(dtype=None, shape=None, npartitions=1, extra_metadata={})

    def _get_partition(self, _: int) -> Any:
        """Intake's ``read`` and ``read_partition`` come here where there is no such method of ours."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ArgumentError(f"{self.name} is not read in this way: {self.usage}")

    def _close(self) -> None:
        """Nothing is kept open between calls."""

    # Intake's base shows YAML in notebooks; our own HTML says more.
    _ipython_display_ = None

    def __repr__(self) -> str:
        """What it is, in a few lines; asks no network."""
        from emcatalog.describe.page import as_text

        return as_text(self.name, self.description, self.metadata, self.about())

    def _repr_html_(self) -> str:
        from emcatalog.describe.page import as_html

        return as_html(self.name, self.description, self.metadata, self.about())
