"""What every driver shares: arguments that are checked at once, a page about the entry, a source that can be sent."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Self

from intake.source.base import DataSource

if TYPE_CHECKING:
    from emcatalog.describe.page import Description


class EntrySource(DataSource):  # type: ignore[misc]  # Intake has no types
    """An entry of a catalog that was given its arguments. Nothing is kept open between calls."""

    version = "1"
    partition_access = False

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

    def _with(self, **arguments: Any) -> Self:
        """This source with other arguments. Intake's own way, ``configure_new``, forgets the entry's parameters."""
        other = type(self)(**{**self._captured_init_kwargs, **arguments})
        other.name, other.description = self.name, self.description
        return other

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
