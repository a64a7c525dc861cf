"""Complaints of users of other explorers, each as a test that this one does not earn it."""

import json
import re
import subprocess
import threading
from datetime import timedelta
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from obs_assets.api.app import make_routes
from obs_assets.hours import Hour
from obs_assets_tests.api.conftest import Load
from obs_assets_tests.explorer.conftest import Seen, open_page, rows, settled, texts
from obs_assets_tests.explorer.samples import EVENTS, HOURS, events_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

MANY = Hour(HOURS[0].start - timedelta(days=2))
"""An hour with more events than the page holds at a time."""

BIG = Hour(HOURS[0].start - timedelta(days=3))
"""An hour with an event of 1 MB in each of its fields."""

MEGABYTE = 1_000_000


def range_of(hour: Hour) -> str:
    return f"from={hour.start:%Y-%m-%dT%H:%M}Z&to={hour.end:%Y-%m-%dT%H:%M}Z"


@pytest.fixture(scope="module")
def many(address: str, load: Load) -> str:
    """Parameters of a range with 2,600 events."""
    made = [
        {
            "id": f"m{number}",
            "timestamp": (MANY.start + timedelta(seconds=number)).isoformat(),
            "type": "many",
            "message": f"event {number}",
        }
        for number in range(2600)
    ]
    load(MANY, made)
    return range_of(MANY)


def to_the_end(page: Page) -> None:
    page.locator(".middle").evaluate("element => element.scrollTo(0, element.scrollHeight)")


def test_row_limits_without_a_next_page(seen: Seen, address: str, many: str) -> None:
    """Scrolling reaches the last of 2,600 events, of which the page never holds more than 2,000."""
    page = open_page(seen, address, f"?{many}")
    held = [rows(page)]
    while not page.get_by_text("rows of this range are loaded").count():
        to_the_end(page)
        page.wait_for_timeout(60)
        held.append(rows(page))
    assert max(held) <= 2000
    expect(page.locator(".foot")).to_have_text("All 2,600 rows of this range are loaded.")
    assert texts(page, "text")[-1] == "event 0"
    expect(page.locator(".above")).to_contain_text("rows above are no longer in the page")
    page.get_by_role("button", name="Back to the first rows").click()
    expect(page.locator(".row .text", has_text="event 2599")).to_be_visible()


def test_exports_cut_in_silence(address: str, many: str) -> None:
    """The copied curl command gets every page's next; an export ends with a record that counts its rows."""
    exported = httpx.get(f"{address}/api/v1/export?{many}", timeout=60).text.splitlines()
    closing = json.loads(exported[-1])["obs_export"]
    assert (closing["rows"], closing["complete"], len(exported)) == (2600, True, 2601)


def test_a_histogram_that_kills_the_list(seen: Seen, address: str) -> None:
    """Where the bars cannot be counted, the list is there, and the bars say so and offer another try."""
    refuse = (
        """{"title": "The database cannot answer now", "status": 503, "detail": "ask again"}"""
    )
    seen.page.route(
        "**/api/v1/histogram**",
        lambda route: route.fulfill(status=503, body=refuse, content_type="application/problem+json"),
    )  # fmt: skip
    page = open_page(seen, address)
    assert rows(page) == 100
    expect(page.locator(".chart-note")).to_contain_text("could not be counted: ask again")
    seen.page.unroute("**/api/v1/histogram**")
    page.get_by_role("button", name="Count again").click()
    expect(page.locator(".chart rect").first).to_be_attached()


def test_a_live_tail_that_omits_and_forgets(seen: Seen, address: str, load: Load) -> None:
    """Rows that come during a pause are shown after it, the filter holds, and a reload goes on live."""
    page = open_page(seen, address, "?q=type:tail")
    page.click("#live-button")
    expect(page.locator("#live-button")).to_have_attribute("data-status", "live")
    page.wait_for_timeout(500)
    page.click("#live-button")
    expect(page.locator("#live-text")).to_have_text("Paused")
    hour = Hour(HOURS[-1].start + timedelta(hours=3))
    made = events_of(hour)
    for event in made[:60]:
        event["type"] = "tail"
    load(hour, made)
    expect(page.locator("#live-text")).to_have_text("Paused, 60 new", timeout=20_000)
    page.click("#live-button")
    expect(page.locator(".rows > .row")).to_have_count(60)
    assert set(texts(page, "type")) == {"tail"}
    page.reload()
    expect(page.locator("#live-button")).to_have_attribute("data-status", "live")
    assert page.input_value("#q") == "type:tail"


def test_a_websocket_that_dies_behind_proxies(seen: Seen, address: str) -> None:
    """The page follows by a plain HTTP answer that tells proxies not to hold it back; it opens no WebSocket."""
    sockets: list[str] = []
    seen.page.on("websocket", lambda socket: sockets.append(socket.url))
    page = open_page(seen, address)
    with page.expect_response("**/api/v1/tail**") as answered:
        page.click("#live-button")
    assert answered.value.headers["content-type"].startswith("text/event-stream")
    assert answered.value.headers["x-accel-buffering"] == "no"
    expect(page.locator("#live-button")).to_have_attribute("data-status", "live")
    assert sockets == []


def test_one_big_event_freezes_the_page(seen: Seen, address: str, load: Load) -> None:
    """1 MB of text in every field: cut, with its size and a button for all; no task of the page takes long."""
    text = "x<b>&\u202e" * (MEGABYTE // 6)
    at = BIG.start.isoformat()
    event = {"id": "big", "timestamp": at, "message": text, "error": text}
    load(BIG, [event | {"deep": {"a": [text] * 3}}])
    page = open_page(seen, address, f"?{range_of(BIG)}")
    page.evaluate(
        """() => {
            window.longest = 0;
            new PerformanceObserver((list) => {
                for (const task of list.getEntries()) {
                    window.longest = Math.max(window.longest, task.duration);
                }
            }).observe({ type: "longtask" });
        }"""
    )
    page.locator(".rows > .row").click()
    details = page.locator("#details")
    page.wait_for_selector("#details .tabs")
    details.get_by_role("tab", name="Text", exact=True).click()
    page.wait_for_selector("#details pre")
    # Before this test reads the text itself, which takes long too.
    assert page.evaluate("window.longest") < 1000
    expect(details.get_by_text("The first 64 kB are shown")).to_be_visible()
    assert details.locator("pre").evaluate("element => element.textContent.length") < 200_000
    assert page.evaluate("document.body.textContent.length") < 400_000
    details.get_by_role("button", name="Show all").click()
    assert (
        details.locator("pre").evaluate("element => element.textContent.length") > 4 * MEGABYTE
    )


def test_links_that_rot(seen: Seen, address: str) -> None:
    """A copied link names its range by absolute moments, and an event by an id that outlives a rebuild."""
    page = open_page(seen, address, "?q=level:error&from=now-9000d")
    page.click("#copy-button")
    page.get_by_role("menuitem", name="Link").click()
    expect(page.locator("#toast")).to_have_text("link copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert re.search(r"from=\d{4}-\d\d-\d\dT[^&]+&to=\d{4}-\d\d-\d\dT", link)
    assert "now" not in link
    wanted = texts(page, "time")
    page.goto(link)
    settled(page)
    assert texts(page, "time") == wanted


def test_state_that_is_not_in_the_address(seen: Seen, address: str) -> None:
    """Query, range, zone, order, columns, colours, values and the open event survive a reload."""
    state = "q=level:error&tz=Asia/Tokyo&order=oldest&by=event_type&cols=usage.model"
    page = open_page(seen, address, f"?{state}")
    page.locator(".rows > .row").nth(2).click()
    expect(page.locator("#details .tabs")).to_be_visible()
    page.select_option("#facets select", "trace_id")
    expect(page.locator(".facet h3", has_text="trace")).to_be_visible()
    before = [page.url, texts(page, "time"), texts(page, "own"), page.input_value("#zone")]
    page.reload()
    settled(page)
    expect(page.locator("#details .tabs")).to_be_visible()
    expect(page.locator(".facet h3", has_text="trace")).to_be_visible()
    assert [
        page.url,
        texts(page, "time"),
        texts(page, "own"),
        page.input_value("#zone"),
    ] == before


def test_surprising_syntax(seen: Seen, address: str) -> None:
    """Dashes, dots and slashes need no quotes; completion writes quotes itself where a value needs them."""
    page = open_page(seen, address, "?q=master:security-master usage.model:small")
    assert set(texts(page, "master")) == {"security-master"}
    page.fill("#q", "")
    page.click("#q")
    page.keyboard.type("type:<script")
    page.fill("#q", "typ")
    # Keys choose from the list of an earlier text until that of this text is there.
    expect(page.locator("#completions li").first).to_contain_text("type")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#completions [aria-selected=true]")).to_contain_text("type")
    page.keyboard.press("Enter")
    expect(page.locator("#q")).to_have_value("type:")
    option = page.locator("#completions li", has_text="<script>")
    expect(option).to_be_visible()
    option.click()
    assert page.input_value("#q").startswith('type:"<script>')
    page.keyboard.press("Enter")
    settled(page)
    assert rows(page) == len(HOURS)


def test_cryptic_timeouts(seen: Seen, address: str) -> None:
    """A search whose time is over shows what it found, says how far it came, and goes on from there."""

    def cut_short(route: Route) -> None:
        answer = route.fetch().json()
        if "cursor=" not in route.request.url:
            answer["complete"] = False
            answer["searched"]["until"] = "2025-12-04T13:00:00Z"
        route.fulfill(json=answer)

    seen.page.route("**/api/v1/events?**", cut_short)
    page = open_page(seen, address)
    foot = page.locator(".foot")
    expect(foot).to_contain_text(
        "The search took its time limit and has read as far as 2025-12-04 13:00"
    )
    foot.get_by_role("button", name="Go on from there").click()
    expect(page.locator(".rows > .row")).to_have_count(200)


def test_slow_facets(seen: Seen, address: str) -> None:
    """Values that take long keep neither the list nor the bars waiting; each says whether it is exact."""
    release = threading.Event()

    def held(route: Route) -> None:
        if release.is_set():
            route.continue_()

    seen.page.route("**/api/v1/facets**", held)
    page = open_page(seen, address)
    assert rows(page) == 100
    expect(page.locator(".chart rect").first).to_be_attached()
    assert page.locator(".facet").count() == 0
    release.set()
    page.unroute("**/api/v1/facets**")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    expect(page.locator(".facet").first).to_be_visible()
    assert page.locator(".facet h3 small.exact").count() == 4


def test_a_field_that_some_events_lack(seen: Seen, address: str) -> None:
    """It is no error: in a query, as a column, as colours, in the values, "(no price)" can be chosen."""
    page = open_page(seen, address, "?cols=odd.nothing,price&by=price&q=-trace:nothing")
    assert rows(page) == 100
    expect(page.locator(".legend").first).to_contain_text("(no price)")
    page.goto(f"{address}/?facets=tags")
    settled(page)
    page.locator(".facet", has_text="tags").get_by_text("(no tags)").click()
    page.wait_for_url("**q=-tags:***")
    settled(page)
    assert rows(page) == 100


def test_counts_of_sampled_data_mislead(seen: Seen, address: str) -> None:
    """Every count says rows or events; a row shows how many events it stands for."""
    stored = EVENTS * len(HOURS)
    page = open_page(seen, address, "?from=2025-12-04T10:00&to=2025-12-04T15:00")
    expect(page.locator("#summary")).to_contain_text(
        f"{stored} rows standing for about 3,300 events"
    )
    assert page.locator(".weight").first.text_content() == "×10"
    chart = page.locator("#histogram")
    counted = chart.get_by_label("Count", exact=True)
    expect(counted).to_have_value("events")
    counted.select_option("rows")
    expect(chart).to_contain_text("rows / ")
    assert "count=rows" in page.url
    chart.get_by_role("button", name="Table").click()
    expect(chart.locator("thead")).to_contain_text("RowsEvents (estimated)")


def test_no_keyboard(seen: Seen, address: str) -> None:
    """Every control can be reached and used by keys; the table of bars zooms; Back undoes it."""
    page = open_page(seen, address)
    page.get_by_role("button", name="Table").focus()
    page.keyboard.press("Enter")
    page.locator(".chart-table button").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**from=2025-12-04T10:00:00Z**")
    settled(page)
    page.go_back()
    expect(page.locator("#range-button")).to_have_text("Last day with events")
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    page.wait_for_url("**q=level:error**")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()


def test_no_api_for_what_the_page_does(seen: Seen, address: str) -> None:
    """The page asks nothing but documented paths below /api/v1; the copied curl command gets the same events."""
    page = open_page(seen, address, "?q=level:error")
    page.locator(".rows > .row").first.click()
    page.get_by_role("tab", name="Context").click()
    page.goto(f"{address}/?view=overview")
    expect(page.locator(".card").first).to_be_visible()
    page.goto(f"{address}/?q=level:error")
    settled(page)
    documented: dict[str, Any] = make_routes({}).openapi()["paths"]
    forms = [re.sub(r"\{\w+\}", "[^/]+", path) for path in documented]
    asked = {path.partition("?")[0] for path in seen.asked if path.startswith("/api/")}
    assert asked
    assert [path for path in asked if not any(re.fullmatch(form, path) for form in forms)] == []
    page.click("#copy-button")
    page.get_by_role("menuitem", name="curl").click()
    expect(page.locator("#toast")).to_have_text("curl copied")
    command = page.evaluate("navigator.clipboard.readText()")
    assert "$OBS_TOKEN" in command
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    events = json.loads(done.stdout)["events"]
    assert len(events) == rows(page)
