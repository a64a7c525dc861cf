"""``_redaction``, the member of an event that lists its redactions: paths, types and mode, never values or lengths."""

import json
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any, NamedTuple, get_args

from obs_assets.transforms.redact.config import Mode
from obs_assets.transforms.redact.memory import Memory, Remembered
from obs_assets.transforms.redact.rules import MAX_ROUNDS, Rules

MARK = "_redaction"
MARK_TRIGGER = rf'{MARK}\\*"\s*:'

_MAX_SHOWN = 256
"""Characters of a path in ``_redaction``; a longer path is cut, since long paths would make events much larger."""


class Field(NamedTuple):
    """A redacted value in ``_redaction``.

    Attributes:
        field: path of the value, after redaction of its keys, such as ``in.0.to``.
        type: type of the value, such as ``email``.
    """

    field: str
    type: str


class Place(NamedTuple):
    """The path of a member.

    Attributes:
        path: the path in the event before redaction.
        shown: the path after redaction of its keys.
    """

    path: str
    shown: str

    def fields(self, types: Iterable[str]) -> set[Field]:
        """The entries of ``_redaction`` for values of these types at this path."""
        return {Field(self.shown, type_) for type_ in types}


Found = tuple[str, tuple[str, ...]]
"""A path without redacted keys, and the types of the values redacted in the string at that path."""


class Marks:
    """Writes and reads ``_redaction`` for a configuration."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._known: Memory[tuple[Found, ...], str] = Memory()
        self._entries = {
            type_: Remembered(partial(self._entry_json, type_)) for type_ in rules.known_types
        }

    def of(self, found: tuple[Found, ...]) -> str:
        """The JSON of ``_redaction`` for these findings. The last results are remembered, unless paths are long."""
        mark = self._known.get(found)
        if mark is None:
            mark = self.json({Field(path, type_) for path, types in found for type_ in types})
            self._known.remember(found, mark, len(mark))
        return mark

    def json(self, fields: Collection[Field]) -> str:
        """The JSON of ``_redaction``."""
        entries = ",".join([self._entries[type_][field] for field, type_ in sorted(fields)])
        return f'{{"redacted":true,"mode":"{self.rules.mode}","fields":[{entries}]}}'

    def _entry_json(self, type_: str, field: str) -> str:
        told = {"field": self._shown(field), "type": type_}
        if type_ in self.rules.modes:
            told["mode"] = self.rules.modes[type_]
        return json.dumps(told, separators=(",", ":"))

    def _shown(self, path: str) -> str:
        """A path in the form that ``_redaction`` shows: redacted and not longer than `_MAX_SHOWN`.

        A path may look like a value although none of its keys does: key ``u@example`` with ``com`` below it. A path
        that is cut inside of a token may look like a value again. So both steps are repeated until nothing changes.
        """
        for _ in range(MAX_ROUNDS):
            redacted = self.rules.string(path)
            shown = path if redacted is None else redacted.text
            shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 1]}…"
            if shown == path:
                return path
            path = shown
        return "…"

    def fields_of(self, mark: Any) -> set[Field] | None:
        """The fields of a ``_redaction`` that an earlier redaction wrote; None for any other value of that key."""
        try:
            fields = [Field(field["field"], field["type"]) for field in mark["fields"]]
            told = [
                {
                    **field._asdict(),
                    **({"mode": entry["mode"]} if entry.get("mode") in get_args(Mode) else {}),
                }
                for field, entry in zip(fields, mark["fields"], strict=True)
            ]
            expected = {"redacted": True, "mode": mark["mode"], "fields": told}
            is_own = mark == expected and all(
                field.type in self.rules.known_types and field.field == self._shown(field.field)
                for field in fields
            )
        except (KeyError, TypeError):
            return None
        return set(fields) if is_own and mark["mode"] in get_args(Mode) else None
