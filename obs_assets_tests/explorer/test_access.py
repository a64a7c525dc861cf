"""The page for everybody: axe-core's rules in both themes, narrow and wide, in each state."""

from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page, expect

from obs_assets_tests.explorer.conftest import Seen, settled, watch

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
SIZES = {"wide": (1400, 900), "narrow": (360, 740)}

RULES = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations.map(
    (found) => `${found.id}: ${found.nodes.slice(0, 4).map((node) => node.target.join(" ")).join(" | ")}`
)"""


def violations(page: Page) -> list[str]:
    """Rules of axe-core that the page breaks, with the elements."""
    page.evaluate(AXE)
    found: list[str] = page.evaluate(RULES)
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_rule_is_broken(  # noqa: PLR0915 - a walk through every state
    browser: Browser, address: str, theme: str, size: str
) -> None:
    """In the list, an event, its text, neighbours and trace, the range, menu, help, a mistake, nothing found.

    The content policy is not broken either.
    """
    width, height = SIZES[size]
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme=theme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    watched = Seen(page)
    watch(watched, address)
    page.goto(address)
    settled(page)
    page.get_by_role("button", name="Table").click()
    page.locator("#facets details").evaluate("element => { element.open = true; }")
    expect(page.locator(".facet").first).to_be_visible()
    found = {"list": violations(page)}
    page.get_by_role("button", name="Table").click()
    page.locator(".rows > .row").nth(3).click()
    expect(page.locator("#details .tabs")).to_be_visible()
    found["event"] = violations(page)
    page.get_by_role("tab", name="Text", exact=True).click()
    found["text"] = violations(page)
    page.get_by_role("tab", name="Context").click()
    expect(page.locator(".context li").first).to_be_visible()
    found["context"] = violations(page)
    page.get_by_role("button", name="Same trace").click()
    expect(page.locator(".waterfall li").first).to_be_visible()
    found["trace"] = violations(page)
    page.go_back()
    page.get_by_role("button", name="Close the event").click()
    page.click("#range-button")
    found["range"] = violations(page)
    page.keyboard.press("Escape")
    page.click("#copy-button")
    found["copy"] = violations(page)
    page.keyboard.press("Escape")
    page.click("#help-button")
    found["help"] = violations(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Hours").click()
    page.get_by_role("button", name="Receipt of").first.click()
    page.click("#live-button")
    expect(page.locator("#notice")).to_be_visible()
    found["hours, live"] = violations(page)
    page.click("#saved-button")
    expect(page.locator("#saved")).to_be_visible()
    found["saved"] = violations(page)
    page.keyboard.press("Escape")
    page.fill("#q", "level:error )")
    page.keyboard.press("Enter")
    found["mistake"] = violations(page)
    page.goto(f"{address}/?q=levell:error")
    expect(page.locator("#empty .examples")).to_be_visible()
    found["nothing"] = violations(page)
    page.goto(f"{address}/?view=overview")
    expect(page.locator(".figures tbody").first).to_be_visible()
    found["overview"] = violations(page)
    page.goto(f"{address}/?view=where&find=event_id:none")
    expect(page.locator(".place")).to_be_visible()
    found["where"] = violations(page)
    page.close()
    assert [f"{state}: {broken}" for state in found for broken in found[state]] == []
    # The console has each violation of the content policy as an error.
    assert (watched.errors, watched.foreign) == ([], [])


def test_the_page_is_usable_at_200_percent(browser: Browser, address: str) -> None:
    """A window of 1280 pixels, zoomed: nothing is wider than the window."""
    page = browser.new_page(viewport={"width": 640, "height": 400})
    page.goto(address)
    settled(page)
    page.locator(".rows > .row").nth(3).click()
    expect(page.locator("#details .tabs")).to_be_visible()
    width = "() => document.scrollingElement.scrollWidth"
    assert page.evaluate(width) <= 640
    page.close()
