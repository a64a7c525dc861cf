"""Live rows: they come when their hour is stored, wait while a reader looks elsewhere, and survive a lost stream."""

from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets_tests.api.conftest import Load
from obs_assets_tests.api.process import free_port, running
from obs_assets_tests.explorer.conftest import Seen, open_page, rows, settled, texts
from obs_assets_tests.explorer.samples import HOURS, events_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

LIVE = "#live-text"


def later(hours: int) -> Hour:
    """An hour behind those that are stored."""
    return Hour(HOURS[-1].start + timedelta(hours=hours))


def follow(page: Page) -> None:
    """Switch to live, and wait until the stream is open."""
    page.click("#live-button")
    expect(page.locator(LIVE)).to_have_text("Live", timeout=15_000)
    expect(page.locator("#live-button")).to_have_attribute("data-status", "live")


def test_rows_come_when_their_hour_is_stored(seen: Seen, address: str, load: Load) -> None:
    """Only those that match, on top, once, in the address; a replaced hour replaces its rows,
    and a row that it no longer has says so.
    """
    page = open_page(seen, address, "?q=level:error")
    before = rows(page)
    follow(page)
    assert "live=1" in page.url
    hour = later(1)
    load(hour, events_of(hour))
    expect(page.locator(".rows > .row").first).to_contain_text("12-04 15", timeout=15_000)
    settled(page)
    assert set(texts(page, "level")) == {"error"}
    assert rows(page) == before + 15
    times = texts(page, "time")
    assert times == sorted(times, reverse=True)
    changed = [
        event | ({"error": "another error"} if "error" in event else {})
        for event in events_of(hour)
    ]
    load(hour, changed, generation=2)
    expect(page.locator(".row .text", has_text="another error")).to_have_count(
        15, timeout=15_000
    )
    assert rows(page) == before + 15
    # The next version of the hour lacks the last error: its row says so, at its place.
    load(hour, changed[:143], generation=3)
    gone = page.locator(".row.is-gone")
    expect(gone).to_have_count(1, timeout=20_000)
    expect(gone.locator(".fate")).to_have_text("no longer stored")
    expect(gone.locator(".text")).to_contain_text("another error")
    assert rows(page) == before + 15
    expect(page.locator("#notice")).to_contain_text(
        "The newest stored hour is 2025-12-04 15:00"
    )


def test_a_pause_keeps_what_came(seen: Seen, address: str, load: Load) -> None:
    """A reader who scrolls is not moved; the button says how many rows wait, and shows them."""
    page = open_page(seen, address)
    follow(page)
    page.locator(".middle").evaluate("element => element.scrollTo(0, 500)")
    expect(page.locator(LIVE)).to_have_text("Paused")
    first = texts(page, "time")[0]
    hour = later(2)
    load(hour, events_of(hour))
    expect(page.locator(LIVE)).to_have_text("Paused, 150 new", timeout=15_000)
    assert texts(page, "time")[0] == first
    page.click("#live-button")
    expect(page.locator(".rows > .row").first).to_contain_text("12-04 16:59")
    expect(page.locator(LIVE)).to_have_text("Live")


def test_a_lost_stream_is_taken_up_again(
    seen: Seen, hourly: HourlyPipeline, folder: Path, load: Load
) -> None:
    """A server that starts anew: the button says that the stream is lost; the rows of the time between come too."""
    page, port = seen.page, free_port()
    with running(hourly, folder, OBS_API_PORT=str(port)) as (process, _):
        page.goto(f"http://127.0.0.1:{port}/")
        settled(page)
        follow(page)
        process.terminate()
        process.wait(15)
        expect(page.locator(LIVE)).to_have_text("Lost, trying again", timeout=15_000)
    hour = later(3)
    load(hour, events_of(hour))
    with running(hourly, folder, OBS_API_PORT=str(port)):
        expect(page.locator(".rows > .row").first).to_contain_text(
            "12-04 17:59", timeout=30_000
        )
        expect(page.locator(LIVE)).to_have_text("Live")
        page.goto("about:blank")
    seen.foreign.clear()  # the other server's port


def test_tabs_share_a_stream(seen: Seen, address: str, load: Load) -> None:
    """Two tabs with the same query get the same rows over one stream; when its tab closes, the other one has it."""
    page = open_page(seen, address)
    follow(page)
    other = page.context.new_page()
    asked: list[str] = []
    other.on("request", lambda request: asked.append(request.url))
    other.goto(f"{address}/?live=1")
    settled(other)
    expect(other.locator(LIVE)).to_have_text("Live")
    hour = later(4)
    load(hour, events_of(hour))
    expect(other.locator(".rows > .row").first).to_contain_text("12-04 18:59", timeout=15_000)
    assert [url for url in asked if "/tail" in url] == []
    page.click("#notice button")
    expect(page.locator(LIVE)).to_have_text("Live")
    other.wait_for_timeout(1000)
    assert len([url for url in asked if "/tail" in url]) == 1
    other.close()
