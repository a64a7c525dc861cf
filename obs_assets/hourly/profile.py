"""The profile of an hour after redaction: fields and their types, levels by minute, cost.

A profile holds paths, types, levels and counts, and no value of an event. It is stored in receipts,
for checks and charts.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from obs_assets.events import Frame

EVENTS_LOOKED_AT = 25_000
"""Events. The fields of a larger hour are read from a sample of at least this size: an event takes 13 µs."""

LEAST_SHARE = 1 / 10
"""The sample holds at least this share of the events: a field of 100 events is nearly always found."""

SHAPES = 5_000
"""Different shapes of events that are read, the most frequent first."""

KEYS = 100
"""Keys of an inner object. Of an object with more keys, the keys count as data, not as names of fields."""

FIELDS = 2_000
"""Fields of an hour that are listed."""

LEVELS = 6
"""Levels that are listed, the most frequent first."""

NO_LEVEL = "no level"
"""Name of the level of events without a level."""

OTHER_LEVELS = "others"
"""Name of all levels that are not listed."""

_TYPES = {"VARCHAR": "string", "BOOLEAN": "boolean", "NULL": "null", "JSON": "any"}
"""Type in DuckDB's ``json_structure`` → JSON type. Every other type is a number."""

_LABEL = re.compile(r"[0-9a-fA-F-]*\d[0-9a-fA-F-]{7,}|\d+")
"""Parts of keys that are data: hexadecimal words such as UUIDs and tokens, and numbers."""


def fields_of(
    frame: Frame,
    rows: int,
    by: str,
) -> dict[Any, dict[str, str]]:
    """The fields of events and their JSON types.

    Args:
        frame: a redacted frame.
        rows: number of events of the largest hour. Above `EVENTS_LOOKED_AT` a sample is read, chosen by
            ``row_uid``.
        by: SQL expression that differs between hours, for example ``filename``.

    Returns:
        value of ``by`` → path → types, sorted; at most `FIELDS` paths. Example: ``steps[].cost`` →
        ``null|number``. ``[]`` stands for the items of a list, ``*`` for an identifier or number in
        a key, or for all keys of an object with more than `KEYS` keys. An object without keys, and a
        value whose type differs between the items of a list, have the type ``any``.
    """
    if rows > EVENTS_LOOKED_AT:
        share = max(EVENTS_LOOKED_AT / rows, LEAST_SHARE)
        # A hash is below a share of its largest value with the probability of that share.
        limit = int(share * (1 << 32))
        frame = frame.filter(f"md5(row_uid) < '{limit:08x}'")
    # `try`: an event that DuckDB cannot parse must not fail the hour for the sake of a profile.
    shapes = frame.aggregate(
        f"{by} AS part, try(json_structure(event)) AS shape, count(*) AS n"
    )
    ranked = shapes.project(
        "*, row_number() OVER (PARTITION BY part ORDER BY n DESC, shape) AS rank"
    )
    most_frequent = ranked.filter(f"rank <= {SHAPES}").order("part, rank")
    roots: dict[Any, _Node] = {}
    for part, shape in most_frequent.project("part, shape").fetchall():
        if shape is not None:
            roots.setdefault(part, _Node()).add(json.loads(shape))
    return {part: _listed(root) for part, root in roots.items()}


def _listed(root: "_Node") -> dict[str, str]:
    # The record of redacted fields differs from hour to hour.
    root.keys.pop("_redaction", None)
    nodes = root.walk("", is_root=True)
    found = {path: "|".join(sorted(types)) for path, types in nodes if path}
    return dict(sorted(found.items())[:FIELDS])


@dataclass
class _Node:
    """The values at a path.

    Attributes:
        types: their JSON types.
        keys: name of a key → the values of that key, for the objects among them.
        items: the items of the lists among them; None without a list.
    """

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
            # DuckDB gives the shape of all items of a list together, as the only element.
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

    def walk(
        self,
        path: str,
        *,
        is_root: bool = False,
    ) -> Iterator[tuple[str, set[str]]]:
        yield path, self.types
        keys = self.keys
        # The keys of the root are the names of the events' fields, whatever their number.
        if len(keys) > KEYS and not is_root:
            merged = _Node()
            for node in keys.values():
                merged.merge(node)
            keys = {"*": merged}
        prefix = f"{path}." if path else ""
        for key, node in keys.items():
            yield from node.walk(f"{prefix}{key}")
        if self.items:
            yield from self.items.walk(f"{path}[]")


def _name(key: str) -> str:
    """A key as a path shows it, with ``*`` for data: ``user_4711`` → ``user_*``.

    A key with a mask is data as a whole; a key with a dot is quoted.
    """
    if "*" in key:
        return "*"
    plain = _LABEL.sub("*", key)
    if "." in plain or not plain:
        return json.dumps(plain, ensure_ascii=False)
    return plain


def by_minute(frame: Frame, by: str) -> dict[Any, dict[str, str]]:
    """Events by level, minute by minute.

    Args:
        frame: a frame after redaction, because a level is text of an event.
        by: SQL expression that differs between hours, for example ``filename``.

    Returns:
        value of ``by`` → level → the numbers of events of the 60 minutes, with blanks between them:
        ``"0 3 1 …"``. The `LEVELS` most frequent levels come first, then `OTHER_LEVELS`.
    """
    counts: dict[Any, dict[str, list[int]]] = {}
    rows = frame.aggregate(
        f"{by}, event_level, minute(event_time) AS minute, count(*) AS n"
    ).fetchall()
    for part, level, minute, n in rows:
        of_part = counts.setdefault(part, {})
        minutes = of_part.setdefault(level or NO_LEVEL, [0] * 60)
        minutes[minute] += n
    return {part: _drawn(levels) for part, levels in counts.items()}


def _drawn(counts: Mapping[str, list[int]]) -> dict[str, str]:
    def most_first(level: str) -> tuple[int, str]:
        return -sum(counts[level]), level

    ranked = sorted(counts, key=most_first)
    shown = {level: counts[level] for level in ranked[:LEVELS]}
    others = [counts[level] for level in ranked[LEVELS:]]
    if others:
        shown[OTHER_LEVELS] = [sum(of_minute) for of_minute in zip(*others, strict=True)]
    return {level: " ".join(map(str, minutes)) for level, minutes in shown.items()}


def cost_of(frame: Frame, by: str) -> dict[Any, dict[str, int | float]]:
    """Value of ``by`` → the number of ``events with a cost`` and the sum of their costs in ``USD``.

    Hours in which no event has a cost are left out.

    Args:
        frame: of a sampled frame, each cost counts ``weight`` times.
        by: SQL expression that differs between hours, for example ``filename``.
    """
    usd = "cost_usd"
    if "weight" in frame.columns:
        # A decimal, because the sum of floats depends on the order of the rows.
        usd = "cost_usd * weight::DECIMAL(18, 6)"
    costs = frame.aggregate(f"{by}, count(cost_usd), sum({usd})").fetchall()
    found: dict[Any, dict[str, int | float]] = {}
    for part, events, total in costs:
        if events:
            found[part] = {
                "events with a cost": events,
                "USD": round(float(total), 6),
            }
    return found
