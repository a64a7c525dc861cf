"""What people do with the page by hand: drag over the bars, print, type a token."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from obs_assets.api.tokens import add_token
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets_tests.api.process import running
from obs_assets_tests.explorer.conftest import Seen, open_page, rows, settled

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def test_a_drag_zooms_and_back_undoes_it(seen: Seen, address: str) -> None:
    """The range becomes that of the bars below the drag; each row that is left is in it."""
    page = open_page(seen, address)
    before = page.url
    box = page.locator("#histogram svg").first.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 3
    page.mouse.move(box["x"] + box["width"] * 0.80, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.95, middle, steps=5)
    page.mouse.up()
    page.wait_for_url("**from=*")
    settled(page)
    zoomed = dict(pair.split("=") for pair in page.url.partition("?")[2].split("&"))
    titles = page.locator(".rows > .row .time").evaluate_all(
        "cells => cells.map((cell) => cell.title)"
    )
    times = [datetime.fromisoformat(title.replace(" UTC", "+00:00")) for title in titles]
    ends = [datetime.fromisoformat(zoomed[end].replace("%3A", ":")) for end in ("from", "to")]
    assert ends[0] < ends[1]
    assert times
    assert all(ends[0] <= time < ends[1] for time in times)
    page.go_back()
    page.wait_for_url(before)


def test_a_print_has_the_rows_and_no_tools(seen: Seen, address: str) -> None:
    """Paper has no buttons; every row is on it, not only those of the window."""
    page = open_page(seen, address)
    shown = rows(page)
    page.emulate_media(media="print")
    for tools in (".head .tools", ".search button", ".facets"):
        expect(page.locator(tools).first).to_be_hidden()
    last = page.locator(".rows > .row").nth(shown - 1).bounding_box()
    assert last
    height = page.evaluate("() => document.documentElement.scrollHeight")
    # Nothing scrolls inside the sheet: the page is as long as its rows.
    assert height >= last["y"] + last["height"] > 2 * 860
    assert len(page.pdf()) > 10_000


def test_a_token_is_typed_once(
    browser: Browser, address: str, hourly: HourlyPipeline, tmp_path: Path
) -> None:
    """A wrong one is refused with a reason; a right one opens the page, and is kept as a cookie only."""
    del address  # its hours are stored in the table of `hourly`
    tokens = tmp_path / "tokens.json"
    token = add_token(tokens, "night", ["read", "tail"], datetime.now(UTC), days=1)
    with running(hourly, tmp_path, OBS_API_AUTH="token", OBS_TOKENS=str(tokens)) as (
        _,
        guarded,
    ):
        page = browser.new_page()
        page.set_default_timeout(20_000)
        page.goto(guarded)
        page.fill("#token-field", "obs_wrong")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#token [role=alert]")).to_be_visible(timeout=20_000)
        page.fill("#token-field", token)
        page.get_by_role("button", name="Use it").click()
        settled(page)
        assert rows(page) > 0
        assert token not in page.url + page.content()
        assert (
            page.evaluate("() => document.cookie + JSON.stringify(localStorage)").find(token)
            < 0
        )
        page.reload()
        settled(page)
        assert rows(page) > 0
        page.close()
