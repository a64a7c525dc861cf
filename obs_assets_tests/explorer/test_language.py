"""The page's parser is the server's parser."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from obs_assets.search.language import Query, QuerySyntaxError, parse, print_query
from obs_assets_tests.search.queries import queries

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

READ = """async (texts) => {
    const { parse, print } = await import("/language.js");
    return texts.map((text) => {
        try {
            return print(parse(text));
        } catch (error) {
            return Array.from(text.slice(0, error.position)).length;
        }
    });
}"""
"""For each text: the query that the page reads, printed; or the place of the mistake in characters."""

pieces = st.sampled_from(
    ["a", "level", ":", "-", "--", "(", ")", '"', " ", "OR", "AND", "NOT", "TO", "[", "]", "*", ">", ">=",
     "\\", "5", "x y", "é", "\U0001f642", "\u2028", "\ufeff", "\x1c", "\x85"]
)  # fmt: skip
texts = st.lists(pieces, max_size=14).map("".join)


@pytest.fixture(scope="module")
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page of a server."""
    opened = browser.new_page()
    opened.goto(address)
    yield opened
    opened.close()


def as_the_server_reads(text: str) -> Any:
    try:
        return print_query(parse(text))
    except QuerySyntaxError as error:
        return error.position


@settings(max_examples=40, deadline=None)
@given(st.lists(texts, min_size=50, max_size=100))
def test_both_read_the_same(page: Page, asked: list[str]) -> None:
    """Any text is the same query for both, or a mistake at the same place."""
    assert page.evaluate(READ, asked) == [as_the_server_reads(text) for text in asked]


@settings(max_examples=40, deadline=None)
@given(st.lists(queries, min_size=20, max_size=40))
def test_both_print_the_same(page: Page, asked: list[Query]) -> None:
    """Queries of every form are printed by the page as the server prints them."""
    printed = [print_query(query) for query in asked]
    # Half of a pair of UTF-16 cannot be sent to the browser.
    sent = [text for text in printed if text.isprintable() or text.isascii()]
    assert page.evaluate(READ, sent) == sent
