"""The fast way for nine events in ten: what is found in an event's text is replaced where it stands, without a walk."""

from obs_assets.transforms.detectors import Span
from obs_assets.transforms.redact.mark import MARK, Field
from obs_assets.transforms.redact.rules import Edit, splice
from obs_assets.transforms.redact.walk import HARMLESS, MAX_DEPTH, Members, encode


def redact_in_place(members: Members, event: str, hits: list[Span]) -> tuple[str | None, list[str]] | None:
    """Redact an event without escapes whose hits all lie in one string each, or in its key too.

    Quotes stand only around strings there.

    Args:
        members: the judge.
        event: the text of one JSON object.
        hits: where triggers fire in it, from left to right.

    Returns:
        the new text, None if it is the old one, and the type of each value redacted; None for an event that needs a
        walk: numbers, objects under a secret's key, keys to rename, JSON in strings.
    """
    if "\\" in event or MARK in event:
        return None
    edits: list[Edit] = []
    types: list[str] = []
    fields: set[Field] = set()
    done = 0
    for hit_start, hit_end in hits:
        if hit_end <= done:
            continue
        place = _string_at(event, hit_start, hit_end)
        if place is None:
            return None
        key_start, key_end, start, end = place
        key, literal = event[key_start:key_end], event[start:end]
        verdict = members.judge(key, literal)
        done = end
        if verdict is HARMLESS:
            continue
        if verdict.value is None or verdict.key or verdict.document:
            return None
        path = _path_to(event[: key_start if key else start], key[1:-1])
        if members.rules.covers(path):
            value = verdict.value
            edits.append((start, end, encode(value.text, literal)))
            types += value.types
            fields.update(Field(path, type_) for type_ in value.types)
    if not edits:
        return None, []
    text = splice(event, edits).rstrip()
    return f'{text[:-1]},"{MARK}":{members.marks.json(fields)}}}', types


def _string_at(event: str, hit_start: int, hit_end: int) -> tuple[int, int, int, int] | None:
    """The string, not a key, that a hit touches, in an event without escapes: (its key's span, its own span).

    The key's span is empty for an element of a list. None if the hit touches anything else, except for the key.
    """
    if not event.count('"', 0, hit_start + 1) % 2:
        return None
    start = event.rfind('"', 0, hit_start + 1)
    end = event.find('"', start + 1) + 1
    key_start = key_end = start
    if event.startswith(':"', end):
        key_end, start = end, end + 1
        end = event.find('"', start + 1) + 1
    elif event[end : end + 1] not in (",", "}", "]"):
        return None
    elif event[start - 1] == ":":
        key_end = start - 1
        key_start = event.rfind('"', 0, key_end - 1)
    elif event[start - 1] not in "[,":
        return None
    return (key_start, key_end, start, end) if hit_end <= end + 1 else None


def _path_to(before: str, key: str) -> str:
    """The path of a member or element, from an event's text before it, without escapes, and its key."""
    if before.count("{") == 1 and "[" not in before:
        return key
    names: list[str | int] = []
    last = ""
    for index, piece in enumerate(before.split('"')):
        if index % 2:
            last = piece
        elif piece not in (":", ","):
            _follow(piece, last, names)
        elif piece == "," and isinstance(names[-1], int):
            names[-1] += 1
        elif piece == ":":
            names[-1] = last
    if isinstance(names[-1], str):
        names[-1] = key
    if len(names) > MAX_DEPTH:
        raise ValueError("too deep")
    return ".".join(map(str, names))


def _follow(structure: str, last: str, names: list[str | int]) -> None:
    """Keep track of where one is through the text between two strings."""
    for character in structure:
        if character == "{":
            names.append("")
        elif character == "[":
            names.append(0)
        elif character in "}]":
            names.pop()
        elif character == ":":
            names[-1] = last
        elif character == "," and isinstance(names[-1], int):
            names[-1] += 1
