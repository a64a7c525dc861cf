"""Events that have a key twice are found, wherever the key is and whatever the events around them look like."""

import json

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from obs_assets.sources.careful import Rules, Segment
from obs_assets.sources.json_text import has_duplicates
from obs_assets.sources.keys import usual_paths
from obs_assets.sources.reader import read_batch

USUAL = [
    '{"a":1,"b":{"a":2},"c":{"b":{"a":"x"}}}',
    '{"b":{"c":2,"a":3}}',
    '{"a":"no brackets"}',
] * 20


def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"


names = st.sampled_from(['"a"', '"b"', '"c"', '"\\u0061"', '"a.b"', '""', '"$"', '"*"', '"{"'])
scalars = st.sampled_from(["1", "null", '"x"', '"{"', '"{}{\\"a\\":1}"'])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(st.tuples(names, inner), max_size=3).map(_object)
        | st.lists(inner, max_size=2).map(lambda items: f"[{','.join(items)}]")
    ),
    max_leaves=6,
)
events = st.lists(st.tuples(names, values), max_size=4).map(_object)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(odd=st.lists(events, min_size=1, max_size=6))
@example(
    odd=[
        '{"b":{"a":1},"b":{"a":1}}',
        '{"c":{"b":{"a":1,"a":2}}}',
        '{"a":[{"c":1,"c":2}],"b":{"a":2}}',
    ]
)
@example(odd=['{"a":[{"c":1,"c":2}]}', '{"a":[{"c":1,"b":2}]}'])
@example(odd=['{"a":{"c":1,"c":2}}', '{"a":"{"}', '{"a":"{"}'])
@example(odd=['{"a":1,"\\u0061":2}', '{"b":{"a":1,"a":2},"c":"{"}'])
def test_what_repeats_a_key_is_found_among_its_like(
    connection: duckdb.DuckDBPyConnection, odd: list[str]
) -> None:
    """The same events as one look at each of them finds, the last of equal keys in each."""
    lines = [*USUAL, *odd, *USUAL]
    data = "".join(f"{line}\n" for line in lines).encode()
    reading = read_batch(connection, data, [Segment(0, 0, len(data))], Rules(1 << 16))
    repeating = [line for line in lines if has_duplicates(line)]
    assert reading.remarks.get("duplicate_keys", 0) == len(repeating)
    read = dict(
        zip(
            reading.lines["file_offset"].to_pylist(),
            reading.lines["line"].to_pylist(),
            strict=True,
        )
    )
    read_in_order = [read[offset] for offset in sorted(read)]
    assert [json.loads(line) for line in read_in_order] == [json.loads(line) for line in lines]
    assert all(
        found == line
        for line, found in zip(lines, read_in_order, strict=True)
        if line not in repeating
    )
    assert not any(map(has_duplicates, read_in_order))


def _paths(lines: list[str]) -> tuple[str, ...]:
    return usual_paths(pa.array(lines, pa.string_view()))


def test_paths_are_used_where_they_tell() -> None:
    """Most events have their objects at the same places, or none are named; what is no JSON does not count."""
    assert set(_paths([*USUAL, "{garbage}"])) == {"$", '$."b"', '$."c"', '$."c"."b"'}
    assert _paths(['{"a":[{"b":1}]}'] * 5) == ()
    assert _paths(['{"a":"{"}', '{"a":"{{"}', '{"a":1}']) == ()
    assert _paths(["{garbage}"]) == _paths([]) == ()
