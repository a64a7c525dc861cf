#!/usr/bin/env python3
"""Take a picture of each state of the explorer, to be looked at: ``python scripts/explorer_states.py ADDRESS FOLDER``.

ADDRESS is a running `obs serve`, for example on the data of ``make demo KEEP=1``. Answers that a healthy server
seldom gives (slow, partial, an error) are made in the browser. Needs Debian's package ``chromium``.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, Route, sync_playwright

CHROMIUM = "/usr/bin/chromium"
WIDE, NARROW = (1400, 860), (360, 740)
EVENTS = "**/api/v1/events?**"
EVERYTHING = "**/api/v1/**"


def nothing(page: Page) -> None:
    """The page is as it comes."""
    del page


@dataclass(frozen=True)
class State:
    """A state of the page.

    Attributes:
        path: address below the server's.
        size: width and height of the window in pixels.
        theme: light or dark.
        prepare: called before the page is opened.
        act: called when it is there.
        settles: whether every part has its answer in the end.
    """

    path: str = "/"
    size: tuple[int, int] = WIDE
    theme: str = "light"
    prepare: Callable[[Page], None] = nothing
    act: Callable[[Page], None] = nothing
    settles: bool = True


def settle(page: Page) -> None:
    """Wait until no part waits for an answer."""
    page.wait_for_timeout(500)
    page.wait_for_function(
        "() => !document.querySelector('[aria-busy=true], .is-searching')"
        " && ![...document.querySelectorAll('.wait')].some((e) => e.textContent.endsWith('…'))",
        timeout=60_000,
    )
    page.wait_for_timeout(300)


def never_answered(page: Page) -> None:
    page.route(EVERYTHING, lambda _: None)


def refused(page: Page) -> None:
    body = {
        "title": "The database cannot answer now",
        "detail": "the database does not answer: ask again in a moment",
        "status": 503,
    }
    page.route(EVERYTHING, lambda route: route.fulfill(status=503, json=body))


def refused_after_the_first(page: Page) -> None:
    refused(page)
    page.keyboard.press("Escape")
    page.keyboard.press("r")


def cut_short(page: Page) -> None:
    def partial(route: Route) -> None:
        answer = json.loads(route.fetch().text())
        if "events" in answer:
            answer["searched"]["until"] = answer["events"][-1]["timestamp"]
        else:
            answer["searched"]["until"] = answer["bars"][len(answer["bars"]) // 3]["start"]
        answer["complete"] = False
        route.fulfill(json=answer)

    page.route(EVENTS, partial)
    page.route("**/api/v1/histogram**", partial)


def open_row(page: Page) -> None:
    page.locator(".rows > .row").nth(9).click()


def type_a_mistake(page: Page) -> None:
    page.fill("#q", "level:(error OR")
    page.keyboard.press("Enter")


def complete(page: Page) -> None:
    page.fill("#q", "level:error t")
    page.keyboard.press("ArrowDown")
    page.locator("#completions li").first.wait_for()


def show_hours(page: Page) -> None:
    page.get_by_role("button", name="Hours").click()
    page.get_by_role("button", name="Receipt of").first.click()


def open_context(page: Page) -> None:
    open_row(page)
    page.get_by_role("tab", name="Context").click()


def open_trace(page: Page) -> None:
    open_row(page)
    page.get_by_role("button", name="Same trace").click()


def open_copy(page: Page) -> None:
    page.locator("#copy-button").click()


def follow(page: Page) -> None:
    page.locator("#live-button").click()
    page.wait_for_timeout(2000)


def show_help(page: Page) -> None:
    page.keyboard.press("Escape")
    page.keyboard.press("?")


STATES = {
    "list": State(),
    "list-dark": State(theme="dark"),
    "event": State(act=open_row),
    "event-dark": State(theme="dark", act=open_row),
    "empty": State(path="/?q=type:nothing"),
    "loading": State(prepare=never_answered, settles=False),
    "slow": State(
        prepare=never_answered, act=lambda page: page.wait_for_timeout(2500), settles=False
    ),
    "error": State(prepare=refused),
    "error-with-old-rows": State(act=refused_after_the_first),
    "partial": State(prepare=cut_short),
    "mistake": State(act=type_a_mistake),
    "completion": State(act=complete),
    "hours": State(act=show_hours),
    "context": State(act=open_context),
    "trace": State(act=open_trace),
    "copy": State(act=open_copy),
    "live": State(act=follow),
    "help-dark": State(theme="dark", act=show_help),
    "overview": State(path="/?view=overview"),
    "overview-dark": State(path="/?view=overview", theme="dark"),
    "where": State(path="/?view=where&find=event_id:none"),
    "narrow": State(size=NARROW),
    "narrow-dark": State(size=NARROW, theme="dark"),
    "narrow-event": State(size=NARROW, act=open_row),
    "narrow-overview": State(path="/?view=overview", size=NARROW),
    "narrow-empty": State(path="/?q=type:nothing", size=NARROW, theme="dark"),
}
"""Name of a picture → the state."""


def take(browser: Browser, address: str, folder: Path, name: str, state: State) -> None:
    """Write the picture of a state."""
    width, height = state.size
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme=state.theme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    state.prepare(page)
    page.goto(f"{address}{state.path}")
    if state.settles:
        settle(page)
    else:
        page.wait_for_timeout(700)
    state.act(page)
    if state.settles:
        settle(page)
    page.screenshot(path=folder / f"{name}.png")
    page.close()
    print(folder / f"{name}.png")


def main() -> None:
    address, folder = sys.argv[1].rstrip("/"), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[3:] or list(STATES)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        for name in wanted:
            take(browser, address, folder, name, STATES[name])
        browser.close()


if __name__ == "__main__":
    main()
