"""Finds events that have a key twice, by their shapes.

A shape is a hash of all keys of an event. The events of a shape all repeat a key, or none of them does, so a single
event of each shape is parsed. Collecting the keys of all objects takes longer than any other step of landing. But most
events have objects at the same paths. Collecting the keys at known paths takes half the time. An event with exactly as
many opening brackets as objects at these paths has no other objects.
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

# The list makes the event's own keys part of the shape. json_type refuses text that is JSON only in a list
ANYWHERE = "hash(json_type(line), json_keys(concat('[', line, ']'), '$..*'))"
"""SQL over ``line``: the shape of any event."""

_LOOKED_AT = 64
"""Number of events that are parsed to find the usual paths."""
_MOST_PATHS = 16
"""Number of paths whose keys are collected."""
_PLAIN = re.compile(r"[\w.@-]+", re.ASCII)


def shape_at(paths: tuple[str, ...]) -> str:
    """SQL over ``line``: the shape from the keys of the objects at these paths, and the number of opening brackets."""
    if not paths:
        return ANYWHERE
    brackets = "strlen(line) - strlen(replace(line, '{', ''))"
    return f"hash(json_keys(line, [{', '.join(map(quote, paths))}]), {brackets})"


def usual_paths(texts: pa.StringViewArray) -> tuple[str, ...]:
    """Paths in DuckDB's form that include all objects of most events; empty if there are no such paths.

    Args:
        texts: texts of events, most of them JSON.
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
    """For each event, whether it may repeat a key. The shape at these paths cannot exclude it."""
    return _by_shape(texts, shapes, lambda text: not _is_told(text, paths))


def repeating(texts: pa.ChunkedArray, shapes: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """For each event, whether it repeats a key; ``shapes`` are the shapes of `ANYWHERE`."""
    return _by_shape(texts, shapes, has_duplicates)


def examples_of(shapes: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A row of each shape, and for each row the index of its shape."""
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
    """Whether no event with the shape of this event repeats a key: all its objects are at these paths."""
    try:
        objects = set(_objects(decode_unique(text)))
    except DuplicateKeyError:
        return False
    return len(objects.intersection(paths)) == text.count("{")


def _objects(value: Any, path: str = "$") -> Iterator[str]:
    """Paths of the objects in an event, if all field names on the path are plain names."""
    if isinstance(value, dict):
        yield path
        for name, item in value.items():
            if _PLAIN.fullmatch(name):
                yield from _objects(item, f'{path}."{name}"')
