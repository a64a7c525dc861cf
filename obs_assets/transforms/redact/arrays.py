"""Outcomes as DuckDB takes them: one Arrow struct for each event of a vector.

Made of buffers: a list would have Arrow import pandas, and look at each item.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_assets.transforms.redact.in_place import Outcome

SQL_TYPE = "STRUCT(event VARCHAR, types VARCHAR, recompute BOOLEAN, failed BOOLEAN)"
"""Of an outcome. ``types`` have blanks between them."""

_Numbers: TypeAlias = npt.NDArray[np.int64]


def to_arrow(outcomes: Mapping[int, Outcome], length: int) -> pa.StructArray:
    """The outcome for each event of a vector, null for one that is as it was.

    Args:
        outcomes: by the number of the event.
        length: how many events the vector has.
    """
    changed = sorted((number, outcome) for number, outcome in outcomes.items() if outcome.event)
    numbers = np.array([number for number, _ in changed], np.int64)
    columns = {
        "event": _strings([outcome.event or "" for _, outcome in changed], numbers, length),
        "types": _strings([" ".join(outcome.types) for _, outcome in changed], numbers, length),
        "recompute": _booleans([outcome.recompute for _, outcome in changed], numbers, length),
        "failed": _booleans([outcome.failed for _, outcome in changed], numbers, length),
    }
    type_ = pa.struct([(name, column.type) for name, column in columns.items()])
    given = _bits([True] * len(changed), numbers, length)
    return pa.Array.from_buffers(type_, length, [given], children=list(columns.values()))


def to_texts(texts: Sequence[str]) -> pa.StringArray:
    """Texts as an array, without pandas."""
    return _strings(texts, np.arange(len(texts)), len(texts))


def _strings(texts: Sequence[str], numbers: _Numbers, length: int) -> pa.StringArray:
    """Texts at their places, empty ones between them."""
    encoded = [text.encode() for text in texts]
    bounds = np.zeros(length + 1, np.int32)
    bounds[numbers + 1] = [len(text) for text in encoded]
    np.cumsum(bounds, out=bounds)
    return pa.Array.from_buffers(
        pa.string(), length, [None, pa.py_buffer(bounds), pa.py_buffer(b"".join(encoded))]
    )


def _booleans(flags: Sequence[bool], numbers: _Numbers, length: int) -> pa.BooleanArray:
    return pa.Array.from_buffers(pa.bool_(), length, [None, _bits(flags, numbers, length)])


def _bits(flags: Sequence[bool], numbers: _Numbers, length: int) -> pa.Buffer:
    """A bitmap of flags at their places, false elsewhere."""
    mask = np.zeros(length, np.bool_)
    mask[numbers] = flags
    return pa.py_buffer(np.packbits(mask, bitorder="little"))
