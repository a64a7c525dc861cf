"""Texts without a copy are the texts."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from obs_assets.sources import views

texts = st.lists(
    st.text(st.characters(codec="utf-8"), max_size=20) | st.text("é😀a", min_size=3, max_size=6)
)


@pytest.mark.slow
@settings(suppress_health_check=list(HealthCheck))
@given(
    texts=texts,
    gap=st.binary(max_size=5),
    reach=st.sampled_from([1 << 30, 64, 7]),
    choice=st.randoms(),
)
def test_views_are_the_texts(
    texts: list[str],
    gap: bytes,
    reach: int,
    choice: random.Random,
) -> None:
    """Short or long, at the end of the data, in a far part of it, taken in any order, from a slice or all."""
    data, first, last = bytearray(), [], []
    for text in texts:
        data += gap
        first.append(len(data))
        data += text.encode()
        last.append(len(data))
    assume(data or not texts)
    found = views.of(data, np.array(first, np.int64), np.array(last, np.int64), reach=reach)
    found.validate(full=True)
    assert found.to_pylist() == texts
    rows = [row for row in range(1, len(texts)) if choice.random() < 0.5][::-1]
    taken = views.take(found[1:], np.array(rows, np.int64) - 1)
    taken.validate(full=True)
    assert taken.to_pylist() == [texts[row] for row in rows]


def test_heads_are_those_of_the_first_buffer() -> None:
    """A text that lies elsewhere, or is kept in its view, has none; at the end of the data zeros follow."""
    data = [
        b"the first text|a short one|the last one of them",
        b"one that lies in another buffer",
    ]
    edges = [([0, 15, 27], [14, 26, 47]), ([0], [31])]
    arrays = [
        views.of(one, np.array(first), np.array(last))
        for one, (first, last) in zip(data, edges, strict=True)
    ]
    heads, lengths = views.heads(pa.chunked_array(arrays).combine_chunks(), 24)
    assert lengths.tolist() == [14, 0, 20, 0]
    assert heads[0].tobytes() == data[0][:24]
    assert heads[2].tobytes() == data[0][27:] + b"\0" * 4
