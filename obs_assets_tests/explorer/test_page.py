"""The page in a browser: it finds events, shows them as text, keeps its state in the address."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from obs_assets_tests.explorer.conftest import Seen, open_page, rows, settled, texts
from obs_assets_tests.explorer.samples import EVENTS, HOURS, ODD

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def test_the_newest_events_are_shown(seen: Seen, address: str) -> None:
    """Without any parameter: a line for each event, the newest first, how many there are and in which range."""
    page = open_page(seen, address)
    times = texts(page, "time")
    assert len(times) == 100
    assert times == sorted(times, reverse=True)
    summary = page.locator("#summary")
    stored = EVENTS * len(HOURS)
    expect(summary).to_contain_text(f"{stored} rows standing for about {EVENTS * 22:,} events")
    expect(summary).to_contain_text("the last day that has events")


def test_a_query_finds_events_and_is_in_the_address(seen: Seen, address: str) -> None:
    """Typed, sent with Enter, undone by Back; a link with the same address shows the same."""
    page = open_page(seen, address)
    page.fill("#q", "level:error master:security-master")
    page.keyboard.press("Escape")
    page.focus("#q")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=level:error+master:security-master")
    settled(page)
    assert set(texts(page, "level")) == {"error"}
    assert set(texts(page, "master")) == {"security-master"}
    found = rows(page)
    page.go_back()
    expect(page.locator("#q")).to_have_value("")
    expect(page.locator(".rows > .row")).to_have_count(100)
    page.goto(f"{address}/?q=level:error+master:security-master")
    settled(page)
    assert rows(page) == found


def test_a_mistake_is_shown_at_its_place(seen: Seen, address: str) -> None:
    """The old rows stay; the sign is marked; the caret goes there."""
    page = open_page(seen, address)
    page.fill("#q", "level:error AND )")
    page.keyboard.press("Enter")
    problem = page.locator("#q-problem")
    expect(problem).to_contain_text("Found ')': expected a term")
    expect(problem.locator("mark")).to_have_text(")")
    assert rows(page) == 100
    problem.get_by_text("Go there").click()
    assert page.evaluate("document.querySelector('#q').selectionStart") == 16
    page.fill("#q", "level:error")
    expect(problem).to_be_hidden()


def test_a_mistake_that_the_server_finds_is_shown_at_the_query(
    seen: Seen, address: str
) -> None:
    """A column of numbers compared with a text; the rows of the search before are dimmed."""
    page = open_page(seen, address)
    page.fill("#q", "duration_ms:>soon")
    page.keyboard.press("Enter")
    expect(page.locator("#q-problem")).to_contain_text("duration_ms is a number")
    expect(page.locator("#list")).to_have_class("list is-stale")


def test_an_event_is_shown_as_tree_and_text(seen: Seen, address: str) -> None:
    """Columns, members, numbers with all digits; a link to the event opens it."""
    page = open_page(seen, address, "?q=big:*")
    page.locator(".rows > .row").first.click()
    details = page.locator("#details")
    expect(details.locator(".leaf", has_text="9007199254740993").first).to_be_visible()
    expect(details.locator(".details-time")).to_contain_text("2025-12-04 14:03:36.063000 UTC")
    details.get_by_role("tab", name="Text", exact=True).click()
    expect(details.locator("pre")).to_contain_text('"big": 9007199254740993')
    expect(details.locator("pre")).to_contain_text('"price": 1.1')
    page.reload()
    settled(page)
    expect(details.locator(".leaf", has_text="9007199254740993").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(details).to_be_hidden()
    assert "event=" not in page.url


def test_texts_of_events_are_texts(seen: Seen, address: str) -> None:
    """Elements, quotes, entities and marks that turn the direction are shown, in list, values and details."""
    page = open_page(seen, address, "?q=message:*&from=2025-12-04T14:00&to=2025-12-04T14:05")
    shown = ODD.replace("\u202e", "‹U+202E›")
    expect(page.locator(".row .text", has_text="<script>").first).to_contain_text(shown)
    page.locator(".rows > .row", has_text="<script>").first.click()
    details = page.locator("#details")
    expect(details.locator("h2")).to_have_text(shown)
    expect(details.locator("summary", has_text="odd<b>")).to_be_visible()
    expect(details.locator(".value", has_text=shown).first).to_be_visible()
    expect(page.locator(".facet-value", has_text="<script>").first).to_be_visible()
    assert page.title() == "message:* · obs_assets"
    assert page.locator("main script").count() == 0


def test_a_value_becomes_a_term_of_the_query(seen: Seen, address: str) -> None:
    """By the tree: an odd value is quoted, the opposite takes the place of the term, a second click takes it out."""
    page = open_page(seen, address, "?q=level:info+OR+level:warning")
    odd = page.locator(".rows > .row", has_text="<script>").first
    odd.click()
    leaf = page.locator("#details .leaf", has=page.locator("b", has_text="event_type"))
    leaf.hover()
    leaf.get_by_role("button", name="Only events with").click()
    settled(page)
    assert page.input_value("#q").startswith('(level:info OR level:warning) type:"<script>')
    assert set(texts(page, "type")) == {ODD.replace("\u202e", "‹U+202E›")}


def test_the_range_is_typed_and_refused(seen: Seen, address: str) -> None:
    """A zone of one's own; a text that is no moment is refused with the forms that exist."""
    page = open_page(seen, address, "?tz=Europe/Berlin")
    page.click("#range-button")
    page.fill("#from", "yesterday")
    page.keyboard.press("Enter")
    expect(page.locator(".field-problem")).to_contain_text("“yesterday” is no moment")
    page.fill("#from", "2025-12-04 11:00")
    page.fill("#to", "2025-12-04 12:00")
    page.keyboard.press("Enter")
    page.wait_for_url("**from=2025-12-04T10:00:00Z&to=2025-12-04T11:00:00Z**")
    settled(page)
    expect(page.locator("#range-button")).to_have_text("2025-12-04 11:00 → 2025-12-04 12:00")
    assert {time[:8] for time in texts(page, "time")} == {"12-04 11"}


def test_pages_follow_one_another(seen: Seen, address: str) -> None:
    """Each row once, to the end of the range, which says so."""
    page = open_page(seen, address)
    for _ in range(20):
        if page.get_by_text("of this range are loaded").count():
            break
        page.locator(".middle").evaluate("element => element.scrollTo(0, element.scrollHeight)")
        page.wait_for_timeout(100)
    assert rows(page) == EVENTS * len(HOURS)
    ids = page.eval_on_selector_all(".rows > .row", "rows => rows.map(row => row.dataset.id)")
    assert len(set(ids)) == len(ids)


def test_a_walk_without_a_mouse(seen: Seen, address: str) -> None:
    """From the empty page to a copied link: search, rows, an event, its link."""
    page = open_page(seen, address)
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("level:error ")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=level:error**")
    settled(page)
    page.keyboard.press("Escape")
    for key in ("j", "j", "j", "k", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#details")).to_be_visible()
    expect(page.locator("#details .tabs")).to_be_visible()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Copy link":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_have_text("link copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    second = texts(page, "time")[1]
    expect(page.locator('.row[aria-selected="true"] .time')).to_have_text(second)
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()


def test_nothing_matches(seen: Seen, address: str) -> None:
    """The page says what was searched, that the query hides rows, a likely name, and how queries are written."""
    page = open_page(seen, address, "?q=levell:error")
    empty = page.locator("#empty")
    expect(empty).to_contain_text("No stored event matches")
    expect(empty).to_contain_text("did you mean 'level'?")
    expect(empty).to_contain_text("600 stored, 0 match")
    empty.get_by_role("button", name="Search without the query").click()
    settled(page)
    assert rows(page) == 100


def test_the_theme_is_kept(seen: Seen, address: str) -> None:
    """Dark stays dark after a reload."""
    page = open_page(seen, address)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    assert page.evaluate(ground) != light
    page.reload()
    assert page.evaluate(ground) != light


def test_saved_searches(seen: Seen, address: str, searches: Path) -> None:
    """Those of the file are listed, with its mistake and the line; one is opened by a click."""
    searches.write_text("searches:\n  - {name: Errors, q: 'level:error', cols: worker_id}\n")
    page = open_page(seen, address)
    page.click("#saved-button")
    page.get_by_role("link", name="Errors").click()
    page.wait_for_url("**q=level:error&cols=worker_id")
    settled(page)
    assert set(texts(page, "level")) == {"error"}
    assert texts(page, "own")[1].startswith("w-")
    searches.write_text("searches:\n  - {name: Errors, q: '('}\n")
    page.click("#saved-button")
    problem = page.locator("#saved [role=alert]")
    expect(problem).to_contain_text("searches.yaml:2: searches.0.q: the query ends too early")
    expect(page.locator("#saved")).to_contain_text('q: "level:error"')
    searches.unlink()


def test_the_environment_is_named(seen: Seen, address: str) -> None:
    """In the head, in red for production."""
    page = open_page(seen, address)
    badge = page.locator("#environment")
    expect(badge).to_have_text("production <b>")
    expect(badge).to_have_class("environment is-production")


def test_a_slow_search_can_be_stopped(seen: Seen, address: str) -> None:
    """Without an answer the page says that it searches, then offers to stop; a new search goes on."""
    seen.page.route("**/api/v1/events?**", lambda route: None)
    seen.page.goto(address)
    foot = seen.page.locator(".foot")
    expect(foot).to_contain_text("Searching…")
    foot.get_by_role("button", name="Stop").click()
    expect(foot).to_contain_text("Stopped.")
    seen.page.unroute("**/api/v1/events?**")
    foot.get_by_role("button", name="Search again").click()
    settled(seen.page)
    assert rows(seen.page) == 100
