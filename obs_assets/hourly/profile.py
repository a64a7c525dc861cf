"""What an hour looks like after redaction: its fields and their types, its levels minute by minute, its cost.

Paths, types, levels and counts, no value. What is found goes into receipts, for checks and charts.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from obs_assets.events import Frame

EVENTS_LOOKED_AT, ONE_OF = 25_000, 10
"""Of a larger hour so many events tell the fields, or one of ten if that is more: they take 13 µs of a processor each.

A field of 100 events is then seen in ten of them, as good as always.
"""

SHAPES, KEYS, FIELDS, LEVELS = 5_000, 100, 2_000, 6
"""Bounds: different shapes of events, keys of one inner object before they count as data, fields, levels."""

NO_LEVEL, OTHER_LEVELS = "no level", "others"

_TYPES = {"VARCHAR": "string", "BOOLEAN": "boolean", "NULL": "null", "JSON": "any"}
_LABEL = re.compile(r"[0-9a-fA-F-]*\d[0-9a-fA-F-]{7,}|\d+")
"""In keys that are data: hexadecimal words such as UUIDs and tokens, and numbers."""

Fields = Mapping[str, str]
"""Path → JSON types, ``|`` between them: ``steps[].cost`` → ``null|number``."""


def fields_of(frame: Frame, rows: int, by: str) -> dict[Any, dict[str, str]]:
    """The fields of events and their JSON types.

    Args:
        frame: a redacted frame.
        rows: how many an hour has, at most; of more than `EVENTS_LOOKED_AT` a part is looked at, chosen by ``row_uid``:
            so many, or one of `ONE_OF`.
        by: SQL that tells hours apart.

    Returns:
        value of ``by`` → path → types, sorted. A list's items are ``[]``. Keys that hold identifiers or numbers are one
        field with ``*`` in their place, and so are all keys of an object that has more than `KEYS` of them. ``any`` is
        the type of an object without keys, and of what differs between the items of a list. At most `FIELDS` an hour.
    """
    if rows > EVENTS_LOOKED_AT:
        part = max(EVENTS_LOOKED_AT / rows, 1 / ONE_OF)
        frame = frame.filter(f"md5(row_uid) < '{int(part * (1 << 32)):08x}'")
    # What DuckDB cannot take apart has been through it many times by now; but a profile must never fail an hour
    shapes = frame.aggregate(
        f"{by} AS part, try(json_structure(event)) AS shape, count(*) AS n"
    )
    ranked = shapes.project(
        "*, row_number() OVER (PARTITION BY part ORDER BY n DESC, shape) AS place"
    )
    roots: dict[Any, _Node] = {}
    for part, shape in (
        ranked.filter(f"place <= {SHAPES}")
        .order("part, place")
        .project("part, shape")
        .fetchall()
    ):
        if shape is not None:
            roots.setdefault(part, _Node()).add(json.loads(shape))
    return {part: _listed(root) for part, root in roots.items()}


def _listed(root: "_Node") -> dict[str, str]:
    root.keys.pop(
        "_redaction", None
    )  # says where something was redacted, and differs from hour to hour
    found = {
        path: "|".join(sorted(types)) for path, types in root.walk("", is_root=True) if path
    }
    return dict(sorted(found.items())[:FIELDS])


@dataclass
class _Node:
    """What was seen at one path."""

    types: set[str] = field(default_factory=set)
    keys: "dict[str, _Node]" = field(default_factory=dict)
    items: "_Node | None" = None

    def add(self, shape: Any) -> None:
        if isinstance(shape, dict):
            self.types.add("object")
            for key, inner in shape.items():
                self.keys.setdefault(_name(key), _Node()).add(inner)
        elif isinstance(shape, list):
            self.types.add("array")
            self.items = self.items or _Node()
            self.items.add(shape[0])
        else:
            self.types.add(_TYPES.get(shape, "number"))

    def merge(self, other: "_Node") -> "_Node":
        self.types |= other.types
        for key, node in other.keys.items():
            self.keys.setdefault(key, _Node()).merge(node)
        if other.items:
            self.items = (self.items or _Node()).merge(other.items)
        return self

    def walk(self, path: str, *, is_root: bool = False) -> Iterator[tuple[str, set[str]]]:
        yield path, self.types
        keys = self.keys
        if len(keys) > KEYS and not is_root:
            one = _Node()
            for node in keys.values():
                one.merge(node)
            keys = {"*": one}
        for key, node in keys.items():
            yield from node.walk(f"{path}.{key}" if path else key)
        if self.items:
            yield from self.items.walk(f"{path}[]")


def _name(key: str) -> str:
    """A key as a path shows it: what is masked, an identifier or a number is data, not a name."""
    if "*" in key:
        return "*"
    plain = _LABEL.sub("*", key)
    return json.dumps(plain, ensure_ascii=False) if "." in plain or not plain else plain


def by_minute(frame: Frame, by: str) -> dict[Any, dict[str, str]]:
    """Events by level, minute by minute.

    Args:
        frame: a frame after redaction: a level is text of an event.
        by: SQL that tells hours apart.

    Returns:
        value of ``by`` → level → the events of each of the 60 minutes, blanks between them; most events first, `LEVELS`
        of them.
    """
    counts: dict[Any, dict[str, list[int]]] = {}
    rows = frame.aggregate(
        f"{by}, event_level, minute(event_time) AS minute, count(*) AS n"
    ).fetchall()
    for part, level, minute, n in rows:
        counts.setdefault(part, {}).setdefault(level or NO_LEVEL, [0] * 60)[minute] += n
    return {part: _drawn(levels) for part, levels in counts.items()}


def _drawn(counts: Mapping[str, list[int]]) -> dict[str, str]:
    ranked = sorted(counts, key=lambda level: (-sum(counts[level]), level))
    shown = {level: counts[level] for level in ranked[:LEVELS]}
    if rest := ranked[LEVELS:]:
        shown[OTHER_LEVELS] = [
            sum(counts[level][minute] for level in rest) for minute in range(60)
        ]
    return {level: " ".join(map(str, minutes)) for level, minutes in shown.items()}


def cost_of(frame: Frame, by: str) -> dict[Any, dict[str, int | float]]:
    """``events with a cost`` and their ``USD``, where an event has one; of a sample, what its events stand for.

    Args:
        frame: with ``weight``, if it is a sample.
        by: SQL that tells hours apart.
    """
    weighed = "cost_usd * weight::DECIMAL(18, 6)" if "weight" in frame.columns else "cost_usd"
    costs = frame.aggregate(f"{by}, count(cost_usd), sum({weighed})").fetchall()
    return {
        part: {"events with a cost": n, "USD": round(float(usd), 6)}
        for part, n, usd in costs
        if n
    }
