"""The query language: it reads, prints and explains."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_assets.search.language import (
    EVERYTHING,
    MAX_CHARACTERS,
    And,
    Compare,
    Exists,
    Not,
    Or,
    Prefix,
    Query,
    QuerySyntaxError,
    Text,
    parse,
    print_query,
)
from obs_assets_tests.search.queries import queries


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", EVERYTHING),
        ("*", EVERYTHING),
        ("timeout", Text("timeout")),
        ('"connection lost"', Text("connection lost")),
        (r'"a \"b\" \\ c"', Text(r'a "b" \ c')),
        ("level:error", Compare("level", "=", "error")),
        ("level: error", Compare("level", "=", "error")),
        ("a-b.c/d_e@f", Text("a-b.c/d_e@f")),
        ("request:/api/v1/x-y", Compare("request", "=", "/api/v1/x-y")),
        ("at:2025-12-04T10:00:00Z", Compare("at", "=", "2025-12-04T10:00:00Z")),
        ('"my field":x', Compare("my field", "=", "x")),
        ("n:>500", Compare("n", ">", "500")),
        ("n:>=-5", Compare("n", ">=", "-5")),
        ('n:<"a b"', Compare("n", "<", "a b")),
        ("n:-5", Compare("n", "=", "-5")),
        ("n:[1 TO 5]", And((Compare("n", ">=", "1"), Compare("n", "<=", "5")))),
        ("trace:*", Exists("trace")),
        ("type:task_*", Prefix("type", "task_")),
        ('type:"task_*"', Compare("type", "=", "task_*")),
        ("-a", Not(Text("a"))),
        ("NOT a", Not(Text("a"))),
        ("NOT -a", Text("a")),
        ("a b c", And((Text("a"), Text("b"), Text("c")))),
        ("a AND b", And((Text("a"), Text("b")))),
        ("a b OR c", Or((And((Text("a"), Text("b"))), Text("c")))),
        ("a (b OR c)", And((Text("a"), Or((Text("b"), Text("c")))))),
        ("-(a b)", Not(And((Text("a"), Text("b"))))),
        ("l:(x OR y)", Or((Compare("l", "=", "x"), Compare("l", "=", "y")))),
        ("l:(x -y*)", And((Compare("l", "=", "x"), Not(Prefix("l", "y"))))),
        ("or and not", And((Text("or"), Text("and"), Text("not")))),
    ],
)
def test_queries_are_read(text: str, query: Query) -> None:
    """Each form of the language, and how the forms bind."""
    assert parse(text) == query


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("(a", 2, "the query ends too early at character 3: expected a term, OR or a closing"),
        ("a)", 1, r"found '\)' at character 2: expected a term, OR or the end of the query"),
        (
            "level:",
            6,
            "ends too early at character 7: expected a value of 'level', for example",
        ),
        ('x "y', 2, "a quote is not closed at character 3: expected a second quote"),
        ("n:[1 5]", 5, "found '5' at character 6: expected TO"),
        ("n:[1 TO", 7, r"expected an end of the range of 'n': \[1 TO 5\]"),
        ("n:>", 3, "nothing stands behind > at character 4: expected a number or a value"),
        ("a OR", 4, "ends too early at character 5: expected a term"),
        ("OR a", 0, "found 'OR' at character 1: expected a term"),
        ("NOT", 3, "ends too early at character 4"),
        (
            "<x:1",
            0,
            "'<x' is no name of a field at character 1: expected a name, or a name in quotes",
        ),
        ("(" * 51, 50, "nested too deep at character 51: expected at most 50 levels"),
        ("a" * 4001, MAX_CHARACTERS, "has 4,001 characters .*: expected at most 4,000"),
    ],
)
def test_mistakes_are_explained(text: str, position: int, message: str) -> None:
    """With the position and the signs that could stand there."""
    with pytest.raises(QuerySyntaxError, match=message) as raised:
        parse(text)
    assert raised.value.position == position


@given(queries)
def test_a_printed_query_reads_as_the_same_query(query: Query) -> None:
    """Filters that a page adds to the tree come back from the text in its address."""
    assert parse(print_query(query)) == query


@given(st.text() | st.text('ab:()[]-"\\*<>=. ORTNDA', max_size=30))
def test_any_text_is_a_query_or_a_mistake(text: str) -> None:
    """No text ends in another error, and the query that it is prints as a text with the same meaning."""
    try:
        query = parse(text)
    except QuerySyntaxError as error:
        mistake_at = error.position
    else:
        assert parse(print_query(query)) == query
        mistake_at = 0
    assert 0 <= mistake_at <= len(text)
