"""Outcomes in the form that DuckDB reads: an Arrow struct for each event of a vector.

The arrays are built from buffers. From a Python list, Arrow would import pandas and look at each item.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_assets.transforms.redact.in_place import Outcome

SQL_TYPE = "STRUCT(event VARCHAR, types VARCHAR, recompute BOOLEAN, failed BOOLEAN)"
"""SQL type of an outcome. ``types`` is a list of names with blanks between them."""

_Numbers: TypeAlias = npt.NDArray[np.int64]


def to_arrow(outcomes: Mapping[int, Outcome], length: int) -> pa.StructArray:
    """The outcome of each event of a vector; null for an unchanged event.

    Args:
        outcomes: number of the event in the vector, from 0 → outcome.
        length: number of events in the vector.
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
    """Convert texts to an array without an import of pandas."""
    return _strings(texts, np.arange(len(texts)), len(texts))


def _strings(texts: Sequence[str], numbers: _Numbers, length: int) -> pa.StringArray:
    """An array with these texts at these indexes, and empty texts elsewhere."""
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
    """A bitmap with these flags at these indexes, and false elsewhere."""
    mask = np.zeros(length, np.bool_)
    mask[numbers] = flags
    return pa.py_buffer(np.packbits(mask, bitorder="little"))
