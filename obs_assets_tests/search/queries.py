"""Random queries and events for the tests of search."""

from typing import Any

from hypothesis import strategies as st

from obs_assets.search import language
from obs_assets.search.language import OPERATORS, Compare, Exists, Prefix, Query, Text
from obs_assets.search.rows import ALIASES, COLUMNS

WORDS = (
    "a",
    "b",
    "Aß",
    "ΑΣ",
    "5",
    "5.0",
    "-1",
    "true",
    "null",
    "x y",
    "*",
    ">1",
    "",
    'q"\\',
    "error",
    "WARN",
)
KEYS = ("a", "b", "a.b", "message", "msg", "k v")

values = st.sampled_from(WORDS) | st.text(max_size=6)
numbers = st.integers(-3, 10).map(str) | st.sampled_from(
    ("0.25", "5e0", "1e3", "99999999999999999999")
)
fields = st.sampled_from((*COLUMNS, *ALIASES, *KEYS, "a.b.a", "b.a")) | st.text(max_size=6)
columns_of_numbers = tuple(name for name, kind in COLUMNS.items() if kind == "number")


def _is_number(field: str) -> bool:
    return ALIASES.get(field, field) in columns_of_numbers


def _compared(field: str) -> st.SearchStrategy[Query]:
    wanted = numbers if _is_number(field) else values | numbers
    return st.builds(Compare, st.just(field), st.sampled_from(("=", *OPERATORS)), wanted)


beginnings = st.text("abAß5-.x", min_size=1, max_size=3)
terms: st.SearchStrategy[Query] = (
    values.map(Text)
    | fields.flatmap(_compared)
    | st.builds(Prefix, fields, beginnings)
    | fields.map(Exists)
)


def _combined(inner: st.SearchStrategy[Query]) -> st.SearchStrategy[Query]:
    several = st.lists(inner, min_size=2, max_size=3)
    return (
        several.map(language.all_of)
        | several.map(language.any_of)
        | inner.map(language.negated)
    )


queries = st.recursive(terms | st.just(language.EVERYTHING), _combined, max_leaves=6)

scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10)
    | st.sampled_from((5.0, 0.25, 1e3, 10**20 - 1))
    | st.sampled_from(WORDS)
    | st.text(max_size=4)
)
documents = st.dictionaries(
    st.sampled_from(KEYS),
    st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)
texts = st.none() | st.sampled_from(WORDS) | st.text(max_size=4)
rows = st.fixed_dictionaries(
    {name: texts for name, kind in COLUMNS.items() if kind == "text"}
    | {
        "event_level": st.sampled_from((None, "error", "warning", "info", "odd")),
        "duration_ms": st.none() | st.integers(-3, 10),
        "cost_usd": st.none() | st.sampled_from((0.25, 1, 5)),
        "weight": st.sampled_from((1.0, 10.0)),
    }
)
