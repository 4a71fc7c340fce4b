"""A description of an entry as text for a terminal and as HTML for a notebook. Asks no network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

_ABOUT: Final = ("title", "organism", "tissue", "modality", "licence", "citation", "doi", "homepage", "sources")
_BRIEFLY: Final = ("licence", "citation", "doi")
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that an entry offers: a channel of a volume, a table."""

    name: str
    """As in the catalog."""
    kind: str
    """In a few words: ``image, uint8``."""
    sentence: str
    """On one line."""
    brief: Mapping[str, str]
    """What a table of parts has columns for."""
    facts: tuple[tuple[str, str], ...]
    """Everything that the catalog says of it, in the order in which a person asks."""
    is_read: bool = True
    """Whether it is read unless something else is asked for."""
    is_confirmed: bool = True
    """Whether its address is known for certain."""

    @property
    def heading(self) -> str:
        """Its name, with what nobody must overlook."""
        return f"{self.name}{'' if self.is_confirmed else ' (ADDRESS NOT CONFIRMED)'}"


@dataclass(frozen=True, slots=True)
class Description:
    """What an entry is."""

    what: str
    """What its parts are: ``channel``, ``table``."""
    parts: tuple[Part, ...]
    """At least one."""
    chosen: Mapping[str, str] = field(default_factory=dict)
    """What is read unless something else is asked for."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The same as options of the command line, where they have a default."""
    size: tuple[str, ...] = ()
    """How large it is and what it is counted in, one fact a line."""
    brief: str = ""
    """What it is counted in, for a line of a list: ``8 nm``."""

    @property
    def read(self) -> list[Part]:
        """Parts that are read."""
        return [part for part in self.parts if part.is_read]

    @property
    def unread(self) -> list[Part]:
        """Parts that are not."""
        return [part for part in self.parts if not part.is_read]


def as_text(name: str, description: str | None, metadata: Mapping[str, Any], about: Description) -> str:
    """A few lines."""
    rows = [(part.name, part.sentence) for part in about.read]
    if about.unread:
        rows.append(("not read", ", ".join(part.heading for part in about.unread)))
    rows += about.chosen.items()
    rows += [(key, text) for key, text in about_facts(metadata).items() if key in _BRIEFLY]
    width = max(map(len, (*(part.name for part in about.read), *about.chosen, "citation")))
    return "\n".join([f"<{name}> {description or ''}".rstrip(), *(f"  {key:<{width}} {text}" for key, text in rows)])


def as_html(name: str, description: str | None, metadata: Mapping[str, Any], about: Description) -> str:
    """Two tables, the parts and everything else; and behind each part's name all that is declared of it."""
    parts = [*about.read, *about.unread]
    headings = "".join(f"<th>{escape(key)}</th>" for key in (about.what, *parts[0].brief))
    rows = _rows((f"{part.name}{'' if part.is_read else ' (not read)'}", *part.brief.values()) for part in parts)
    details = "".join(
        f"<details><summary>{escape(part.name)}</summary><table>{_rows(part.facts)}</table></details>" for part in parts
    )
    facts = {**about.chosen, **about_facts(metadata)}
    return (
        f"<div><b>{escape(name)}</b> {escape(description or '')}"
        f"<table><tr>{headings}</tr>{rows}</table><table>{_rows(facts.items())}</table>{details}</div>"
    )


def doubt_of(model: Any) -> Iterator[tuple[str, str]]:
    """What about the address of something is not confirmed, if so; stands before all else."""
    if model.unconfirmed is not None:
        yield "NOT CONFIRMED", model.unconfirmed


def said_of(model: Any) -> Iterator[tuple[str, str]]:
    """What the catalog says of anything it declares: where it is, what to know, where the numbers come from."""
    if (url := getattr(model, "url", None)) is not None:
        yield "address", url
    if model.note:
        yield "note", model.note
    yield "numbers from", model.source


def about_facts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What the catalog says of the dataset as a whole: licence, citation, ..."""
    return {key: _text(metadata[key]) for key in _ABOUT if metadata.get(key)}


def format_bytes(number: float) -> str:
    """Bytes for a person, in units of thousands: ``525 GB``."""
    power = min(len(_UNITS) - 1, int(math.log10(max(number, 1)) // 3))
    if power + 1 < len(_UNITS) and number >= 999.5 * 1000**power:
        power += 1  # three digits of it are 1000
    return f"{number / 1000**power:.3g} {_UNITS[power]}"


def _text(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _rows(rows: Iterable[Iterable[object]]) -> str:
    return "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)


def _cell(content: object) -> str:
    text = escape(str(content))
    return f"<td><b>{text}</b></td>" if "NOT CONFIRMED" in text else f"<td>{text}</td>"
