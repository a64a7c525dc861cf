"""Arrow columns of texts that lie in a larger buffer, without copying the texts.

They are Arrow's string views of sixteen bytes: the length of the text, and either the whole text, or its beginning and
its position.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_WHOLE = 12
"""Bytes of the longest text that is stored inside its view."""

REACH = 1 << 30
"""Bytes of a buffer of views: a position in it has 31 bits."""

_VIEW = np.dtype(
    [("length", "<i4"), ("beginning", "<u4"), ("buffer", "<i4"), ("offset", "<i4")]
)


def of(
    data: bytes | bytearray,
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    *,
    reach: int = REACH,
) -> pa.StringViewArray:
    """The UTF-8 texts from ``first`` to before ``last``. They are valid as long as ``data`` does not change.

    Longer data is divided into several buffers of ``reach`` bytes.
    """
    views = np.empty(len(first), _VIEW)
    views["length"] = last - first
    views["buffer"], views["offset"] = first // reach, first % reach
    is_short = views["length"] <= _WHOLE
    is_long = ~is_short
    # Four bytes from any position: an array whose elements overlap
    fours = np.ndarray(max(len(data) - 3, 0), "<u4", data, strides=(1,))
    # A view of a long text holds its first four bytes; a view of a short text holds all of it
    if is_short.any():
        views["beginning"][is_long] = fours[first[is_long]]
        _keep_whole(views, np.flatnonzero(is_short), np.frombuffer(data, np.uint8), first)
    else:
        views["beginning"] = fours[first]
    whole = pa.py_buffer(data)
    buffers = [whole.slice(start) for start in range(0, max(len(data), 1), reach)]
    return pa.Array.from_buffers(
        pa.string_view(), len(views), [None, pa.py_buffer(views), *buffers]
    )


def heads(
    texts: pa.StringViewArray, width: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """The first ``width`` bytes of each text, and its length. Behind a shorter text there are bytes of the next text.

    Only texts in the first buffer are read; all other texts get the length 0.
    """
    _, views, data, *_ = texts.buffers()
    views = np.frombuffer(views, _VIEW)[texts.offset : texts.offset + len(texts)]
    lengths = np.where((views["buffer"] == 0) & (views["length"] > _WHOLE), views["length"], 0)
    places = np.where(lengths > 0, views["offset"], 0)
    data = np.frombuffer(data, np.uint8)
    end = max(len(data) - width, 0)
    padded = np.concatenate([data[end:], np.zeros(width, np.uint8)])
    found = _pieces(data if end else padded, width)[np.minimum(places, end)]
    at_end = places > end
    found[at_end] = _pieces(padded, width)[places[at_end] - end]
    return found.view(np.uint8).reshape(-1, width), lengths


def _pieces(data: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.void]:
    """``width`` bytes from any position: an array whose elements overlap."""
    return np.ndarray(len(data) - width + 1, f"V{width}", data, strides=(1,))


def take(texts: pa.StringViewArray, rows: npt.NDArray[np.int64]) -> pa.StringViewArray:
    """The texts of these rows, in this order. Arrow cannot do this yet."""
    _, views, *buffers = texts.buffers()
    taken = np.frombuffer(views, _VIEW)[texts.offset + rows]
    return pa.Array.from_buffers(
        pa.string_view(), len(rows), [None, pa.py_buffer(taken), *buffers]
    )


def take_rows(table: pa.Table, rows: npt.NDArray[np.int64]) -> pa.Table:
    """These rows, in this order, of a table that may have columns of views."""
    columns = [
        take(column.combine_chunks(), rows)
        if column.type == pa.string_view()
        else column.take(pa.array(rows))
        for column in table.columns
    ]
    return pa.table(columns, table.column_names)


def filter_rows(table: pa.Table, is_wanted: npt.NDArray[np.bool_]) -> pa.Table:
    """The wanted rows of such a table, or the table itself if all rows are wanted."""
    return table if is_wanted.all() else take_rows(table, np.flatnonzero(is_wanted))


def _keep_whole(
    views: npt.NDArray[np.void],
    rows: npt.NDArray[np.int64],
    data: npt.NDArray[np.uint8],
    first: npt.NDArray[np.int64],
) -> None:
    """Write the short texts into their views, followed by zeros."""
    places = first[rows][:, None] + np.arange(_WHOLE)
    texts = data[np.minimum(places, len(data) - 1)]
    texts[np.arange(_WHOLE) >= views["length"][rows][:, None]] = 0
    views.view(np.uint8).reshape(len(views), _VIEW.itemsize)[rows, 4:] = texts
