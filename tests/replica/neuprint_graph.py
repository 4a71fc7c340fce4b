"""What a neuPrint database holds, as a small graph, and as much Cypher as neuprint-python sends to ask for it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Properties = dict[str, Any]
Row = dict[str, Any]
Expression = Callable[[Row], Any]


@dataclasses.dataclass(frozen=True)
class Body:
    """One segment of the volume."""

    id: int
    rois: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """Presynaptic and postsynaptic sites in each region, primary or not."""
    pre: int = 0
    post: int = 0
    soma: tuple[int, int, int] | None = None
    """Voxels, xyz."""
    is_neuron: bool = True
    """Neurons are Segments that carry a second label."""
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """`type`, `instance`, `superclass`, `status`, `statusLabel`: those that are known."""

    @property
    def properties(self) -> Properties:
        """What the database holds: an unknown property is not there, a region is a property that is true."""
        info = {roi: {"pre": pre, "post": post} for roi, (pre, post) in self.rois.items()}
        soma = {} if self.soma is None else {"somaLocation": point(*self.soma)}
        counts = {"bodyId": self.id, "pre": self.pre, "post": self.post, "roiInfo": json.dumps(info)}
        return {**counts, **self.annotations, **soma, **dict.fromkeys(self.rois, True)}


@dataclasses.dataclass(frozen=True)
class Connection:
    """All synapses from one body onto another."""

    pre: int
    post: int
    weight: int
    rois: Mapping[str, int]
    """Synapses in each region, primary or not; the rest lies in none."""

    @property
    def properties(self) -> Properties:
        """What the database holds."""
        info = {roi: {"pre": count, "post": count} for roi, count in self.rois.items()}
        return {"weight": self.weight, "weightHP": self.weight // 2, "roiInfo": json.dumps(info)}


@dataclasses.dataclass(frozen=True)
class Graph:
    """One dataset."""

    bodies: Sequence[Body]
    connections: Sequence[Connection]
    primary_rois: Sequence[str]
    """They do not overlap."""
    other_rois: Sequence[str] = ()
    """Those within or around the primary ones."""

    def nodes(self, label: str) -> list[Properties]:
        """All nodes that carry a label."""
        if label == "Segment":
            return [body.properties for body in self.bodies]
        return [body.properties for body in self.bodies if body.is_neuron]

    def meta(self, dataset: str) -> Properties:
        """The one node that describes the dataset."""
        name, _, tag = dataset.partition(":")
        neurons = self.nodes("Neuron")
        info = {roi: {"isPrimary": roi in self.primary_rois} for roi in (*self.primary_rois, *self.other_rois)}
        hierarchy = {"name": "CNS", "children": [{"name": roi} for roi in info]}
        types = {key: type(value).__name__ for node in neurons for key, value in node.items() if key not in info}
        return {
            "dataset": name,
            "tag": tag,
            "uuid": "unknown",
            "lastDatabaseEdit": "unknown",
            "primaryRois": list(self.primary_rois),
            "superLevelRois": list(self.primary_rois),
            "roiInfo": json.dumps(info),
            "roiHierarchy": json.dumps(hierarchy),
            "totalPreCount": sum(body.pre for body in self.bodies),
            "totalPostCount": sum(body.post for body in self.bodies),
            "voxelSize": [8.0, 8.0, 8.0],
            "voxelUnits": "nanometers",
            "neuronProperties": json.dumps(types),
        }


def point(x: int, y: int, z: int) -> Properties:
    """A place as neuPrintHTTP writes it (storage/neuprintbolt/transaction.go)."""
    link = {"href": "http://spatialreference.org/ref/sr-org/9157/ogcwkt/", "type": "ogcwkt"}
    crs = {"name": "cartesian-3d", "properties": link, "srid": 9157, "type": "link"}
    return {"coordinates": [float(x), float(y), float(z)], "crs": crs, "type": "Point"}


class CypherError(Exception):
    """A query that this database does not understand."""


_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*)
    |(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<number>\d+)
    |(?P<name>[A-Za-z_]\w*|`[^`]+`)
    |(?P<sign><=|>=|<>|=~|->|[-=<>(){}\[\],.:])""",
    re.VERBOSE | re.DOTALL,
)

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b),
    "<>": lambda a, b: bool(a != b),
    ">=": lambda a, b: bool(a >= b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    "<": lambda a, b: bool(a < b),
    "=~": lambda a, b: re.fullmatch(b, a) is not None,
    "IN": lambda a, b: a in b,
}

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exists": lambda value: value is not None,
    "coalesce": lambda *values: next((value for value in values if value is not None), None),
    "apoc.convert.fromJsonMap": lambda text: None if text is None else json.loads(text),
    "apoc.convert.fromJsonList": lambda text: None if text is None else json.loads(text),
}


def _not(value: Any) -> Any:
    return None if value is None else not value


def _and(a: Any, b: Any) -> Any:
    return False if a is False or b is False else None if a is None or b is None else True


class Query:
    """One Cypher query, run while it is read: each clause turns rows of variables into others."""

    def __init__(self, text: str, graph: Graph, dataset: str) -> None:
        self._text, self._graph, self._dataset = text, graph, dataset
        self._tokens: list[re.Match[str]] = []
        at = 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is None:
                raise CypherError(f"Invalid input {text[at]!r}")
            self._tokens += [] if token.lastgroup == "skip" else [token]
            at = token.end()
        self._at = 0
        self._names: list[str] = []

    def run(self) -> tuple[list[str], list[Row]]:
        """The names of its columns, and its rows."""
        rows: list[Row] = [{}]
        while not self._take("RETURN"):
            if self._take("MATCH"):
                rows = self._match(rows)
            elif self._take("WITH"):
                rows = self._project(rows)
            elif self._take("CALL"):
                rows = self._call()
            elif self._take("WHERE"):
                holds = self._expression()
                rows = [row for row in rows if holds(row) is True]
            else:
                raise CypherError(f"Invalid input {self._peek()!r}")
        rows = self._return(rows)
        return self._names, rows

    # --- clauses

    def _match(self, rows: list[Row]) -> list[Row]:
        first, label = self._node()
        if not self._take("-"):
            return [{**row, first: node} for row in rows for node in self._nodes(label)]
        self._expect("[")
        edge = self._name()
        self._expect(":", "ConnectsTo", "]", "->")
        last, target = self._node()
        sources = {node["bodyId"]: node for node in self._nodes(label)}
        targets = {node["bodyId"]: node for node in self._nodes(target)}
        found = [
            {first: sources[link.pre], edge: link.properties, last: targets[link.post]}
            for link in self._graph.connections
            if link.pre in sources and link.post in targets
        ]
        return [{**row, **binding} for row in rows for binding in found]

    def _node(self) -> tuple[str, str]:
        self._expect("(")
        name = self._name()
        self._expect(":")
        label = self._name()
        self._expect(")")
        return name, label

    def _nodes(self, label: str) -> list[Properties]:
        if label == "Meta":
            return [self._graph.meta(self._dataset)]
        if label in ("Neuron", "Segment"):
            return self._graph.nodes(label)
        raise CypherError(f"No nodes are labelled {label!r}")

    def _call(self) -> list[Row]:
        """`CALL apoc.cypher.runTimeboxed("query", {}, milliseconds) YIELD value`."""
        self._expect("apoc", ".", "cypher", ".", "runTimeboxed", "(")
        inner = self._literal()({})
        self._expect(",", "{", "}", ",")
        self._literal()
        self._expect(")", "YIELD", "value")
        return [{"value": row} for row in Query(inner, self._graph, self._dataset).run()[1]]

    def _return(self, rows: list[Row]) -> list[Row]:
        made = self._project(rows)
        if self._take("ORDER"):
            made = self._ordered(rows, made)
        if self._at < len(self._tokens):
            raise CypherError(f"Invalid input {self._peek()!r}")
        return made

    def _ordered(self, rows: list[Row], made: list[Row]) -> list[Row]:
        self._expect("BY")
        order = list(range(len(made)))
        keys: list[tuple[Expression, bool]] = []
        while not keys or self._take(","):
            keys.append((self._expression(), self._take("DESC")))
        for key, descending in reversed(keys):
            values = [key({**row, **more}) for row, more in zip(rows, made, strict=True)]
            order.sort(key=values.__getitem__, reverse=descending)
        return [made[index] for index in order]

    def _project(self, rows: list[Row]) -> list[Row]:
        """`a.b AS c, ...`: the rows of these; a count makes one of them all."""
        start = self._at
        if self._counted():
            self._names = [self._alias(start)]
            return [{self._names[0]: len(rows)}]
        values: dict[str, Expression] = {}
        while not values or self._take(","):
            start = self._at
            value = self._expression()
            values[self._alias(start)] = value
        self._names = list(values)
        return [{name: value(row) for name, value in values.items()} for row in rows]

    def _alias(self, start: int) -> str:
        """The name of what was read from the token `start` on: as it is written, if none is given."""
        first, last = self._tokens[start], self._tokens[self._at - 1]
        return self._name() if self._take("AS") else self._text[first.start() : last.end()]

    def _counted(self) -> bool:
        if not self._take("count"):
            return False
        self._expect("(")
        self._name()
        self._expect(")")
        return True

    # --- expressions

    def _expression(self) -> Expression:
        left = self._conjunction()
        while self._take("OR"):
            left = (lambda a, b: lambda row: _not(_and(_not(a(row)), _not(b(row)))))(left, self._conjunction())
        return left

    def _conjunction(self) -> Expression:
        left = self._negation()
        while self._take("AND"):
            left = (lambda a, b: lambda row: _and(a(row), b(row)))(left, self._negation())
        return left

    def _negation(self) -> Expression:
        if self._take("NOT"):
            value = self._negation()
            return lambda row: _not(value(row))
        return self._comparison()

    def _comparison(self) -> Expression:
        left = self._atom()
        if self._take("IS"):
            wanted = not self._take("NOT")
            self._expect("NULL")
            return lambda row: (left(row) is None) is wanted
        sign = self._peek().upper()
        if sign not in _COMPARISONS:
            return left
        self._at += 1
        right = self._atom()

        def compared(row: Row) -> bool | None:
            a, b = left(row), right(row)
            return None if a is None or b is None else _COMPARISONS[sign](a, b)

        return compared

    def _atom(self) -> Expression:
        if self._take("("):
            inside = self._expression()
            self._expect(")")
            return inside
        kind = self._tokens[self._at].lastgroup if self._at < len(self._tokens) else ""
        if kind in ("string", "number") or self._peek() == "[" or self._peek().lower() in ("true", "false", "null"):
            return self._literal()
        names = [self._name()]
        while self._take("."):
            names.append(self._name())
        if self._take("("):
            return self._function(".".join(names))
        return lambda row: self._value(row, names)

    def _value(self, row: Row, names: list[str]) -> Any:
        if names[0] not in row:
            raise CypherError(f"Variable `{names[0]}` not defined")
        value = row[names[0]]
        for name in names[1:]:
            value = None if value is None else value.get(name)
        return value

    def _function(self, name: str) -> Expression:
        known = {key.lower(): function for key, function in _FUNCTIONS.items()}
        if name.lower() not in known:
            raise CypherError(f"Unknown function {name!r}")
        arguments = [self._expression()]
        while self._take(","):
            arguments.append(self._expression())
        self._expect(")")
        return lambda row: known[name.lower()](*(argument(row) for argument in arguments))

    def _literal(self) -> Expression:
        text = self._peek()
        self._at += 1
        if text == "[":
            items: list[Any] = []
            while not self._take("]"):
                items.append(self._literal()({}))
                self._take(",")
            return lambda row: items
        if text[:1] in ("'", '"'):
            value = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
            return lambda row: value
        constants = {"true": True, "false": False, "null": None}
        constant = constants[text.lower()] if text.lower() in constants else int(text)
        return lambda row: constant

    # --- tokens

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _take(self, text: str) -> bool:
        """Whether this comes next, which is then read; keywords in any case."""
        found = self._peek().lower() == text.lower()
        self._at += found
        return found

    def _expect(self, *texts: str) -> None:
        for text in texts:
            if not self._take(text):
                raise CypherError(f"Invalid input {self._peek()!r}: expected {text!r}")

    def _name(self) -> str:
        if self._at == len(self._tokens) or self._tokens[self._at].lastgroup != "name":
            raise CypherError(f"Invalid input {self._peek()!r}: expected an identifier")
        self._at += 1
        return self._tokens[self._at - 1][0].strip("`")
