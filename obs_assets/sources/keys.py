"""Which events have a key twice, told by their shapes.

A shape is a hash of all keys of an event: events of one shape repeat a key, or none of them does, so that one of each
is looked at. To gather the keys of objects wherever they are takes longer than anything else that landing does. Most
events have theirs where others have them: at known paths that takes half of the time, and an event with no more opening
brackets than objects at these paths has no other objects.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_assets.events import quote
from obs_assets.sources.json_text import DuplicateKeyError, decode_unique, has_duplicates

# The list around the event makes the event's own keys part of it, and JSON of what is none, which json_type refuses
ANYWHERE = "hash(json_type(line), json_keys(concat('[', line, ']'), '$..*'))"
"""SQL over ``line``: the shape, whatever the event."""

_LOOKED_AT = 64
_MOST_PATHS = 16
_PLAIN = re.compile(r"[\w.@-]+", re.ASCII)


def shape_at(paths: tuple[str, ...]) -> str:
    """SQL over ``line``: the shape as far as the objects at these paths tell it, and the number of brackets."""
    if not paths:
        return ANYWHERE
    brackets = "strlen(line) - strlen(replace(line, '{', ''))"
    return f"hash(json_keys(line, [{', '.join(map(quote, paths))}]), {brackets})"


def usual_paths(texts: pa.StringViewArray) -> tuple[str, ...]:
    """Where most of some events have all their objects, in DuckDB's form; none if there are no such places.

    Args:
        texts: of events, most of them JSON.
    """
    looked_at = []
    for row in np.unique(
        np.linspace(0, len(texts) - 1, min(len(texts), _LOOKED_AT)).astype(int)
    ).tolist():
        text = texts[row].as_py()
        try:
            looked_at.append((set(_objects(decode_unique(text))), text.count("{")))
        except (json.JSONDecodeError, DuplicateKeyError, RecursionError):
            continue
    usual = [
        path
        for path, _ in Counter(path for paths, _ in looked_at for path in paths).most_common(
            _MOST_PATHS
        )
    ]
    told = sum(len(paths.intersection(usual)) == brackets for paths, brackets in looked_at)
    return tuple(usual) if 2 * told > len(looked_at) else ()


def untold(
    texts: pa.ChunkedArray, shapes: pa.ChunkedArray, paths: tuple[str, ...]
) -> npt.NDArray[np.bool_]:
    """Which events may repeat a key, for all that their shapes at these paths tell."""
    return _by_shape(texts, shapes, lambda text: not _is_told(text, paths))


def repeating(texts: pa.ChunkedArray, shapes: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which events repeat a key, by their shapes `ANYWHERE`."""
    return _by_shape(texts, shapes, has_duplicates)


def examples_of(shapes: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A row of each shape, and of each row which of these has its shape."""
    encoded = shapes.combine_chunks().dictionary_encode()  # by hashing: np.unique would sort
    shape_of = encoded.indices.to_numpy()
    examples = np.empty(len(encoded.dictionary), np.int64)
    examples[shape_of] = np.arange(len(shape_of))
    return examples, shape_of


def _by_shape(
    texts: pa.ChunkedArray, shapes: pa.ChunkedArray, judge: Callable[[str], bool]
) -> npt.NDArray[np.bool_]:
    examples, shape_of = examples_of(shapes)
    verdicts = np.array(
        [judge(texts[example].as_py()) for example in examples.tolist()], np.bool_
    )
    found: npt.NDArray[np.bool_] = verdicts[shape_of]
    return found


def _is_told(text: str, paths: tuple[str, ...]) -> bool:
    """Whether no object of an event repeats a key, nor can one elsewhere in an event of its shape."""
    try:
        objects = set(_objects(decode_unique(text)))
    except DuplicateKeyError:
        return False
    return len(objects.intersection(paths)) == text.count("{")


def _objects(value: Any, path: str = "$") -> Iterator[str]:
    """The paths of the objects in an event, as far as names of fields lead to them that need no thought."""
    if isinstance(value, dict):
        yield path
        for name, item in value.items():
            if _PLAIN.fullmatch(name):
                yield from _objects(item, f'{path}."{name}"')
