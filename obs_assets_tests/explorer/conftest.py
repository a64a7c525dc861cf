"""The explorer in a real browser: Debian's Chromium on `obs serve` in a process, over a real table."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets_tests.api.conftest import Load, client, hourly, load
from obs_assets_tests.api.process import running
from obs_assets_tests.explorer.samples import HOURS, events_of

__all__ = ["client", "hourly", "load"]

CHROMIUM = "/usr/bin/chromium"
WIDE = {"width": 1400, "height": 860}


@dataclass
class Seen:
    """What a page did.

    Attributes:
        page: the page.
        errors: messages of scripts and of the content policy in the console.
        foreign: addresses of requests that went anywhere else than to the server.
        asked: paths of the requests.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the server, with its pipeline file."""
    return tmp_path_factory.mktemp("serve")


@pytest.fixture
def searches(folder: Path) -> Path:
    """The file of saved searches."""
    return folder / "pipelines" / "events" / "searches.yaml"


@pytest.fixture(scope="module")
def address(hourly: HourlyPipeline, load: Load, folder: Path) -> Iterator[str]:
    """Address of a server over the hours of `samples`."""
    for number, hour in enumerate(HOURS):
        load(hour, events_of(hour), weight=10.0 if number % 2 else 1.0)
    variables = {
        "OBS_ENVIRONMENT": "production <b>",
        "OBS_DAGSTER_URL": "http://127.0.0.1:1/dagster",
    }
    with running(hourly, folder, **variables) as (_, url):
        yield url


@pytest.fixture
def seen(browser: Browser, address: str) -> Iterator[Seen]:
    """A page in a new context; in the end, no script failed and nothing foreign was asked."""
    context = browser.new_context(viewport=WIDE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(10_000)
    watched = Seen(context.new_page())
    watch(watched, address)
    yield watched
    context.close()
    assert watched.errors == []
    assert watched.foreign == []


def watch(watched: Seen, address: str) -> None:
    """Note what a page does."""

    def asked(request: Request) -> None:
        if request.url.startswith(("data:", "blob:")):
            return
        if not request.url.startswith(f"{address}/"):
            watched.foreign.append(request.url)
        watched.asked.append(request.url.removeprefix(address))

    watched.page.on("request", asked)
    watched.page.on("pageerror", lambda error: watched.errors.append(str(error)))
    watched.page.on(
        "console",
        lambda message: (
            watched.errors.append(message.text)
            if message.type == "error" and "Failed to load resource" not in message.text
            else None
        ),
    )


def open_page(seen: Seen, address: str, parameters: str = "") -> Page:
    """Open the page and wait for its first rows, or for the reason why there is none."""
    seen.page.goto(f"{address}/{parameters}")
    settled(seen.page)
    return seen.page


def settled(page: Page) -> None:
    """Wait until the list is not loading."""
    page.wait_for_function(
        "() => !document.body.classList.contains('is-searching')"
        " && (document.querySelector('.rows > .row')"
        " || !document.querySelector('#empty').hidden"
        " || !document.querySelector('#list-problem').hidden)"
    )


def texts(page: Page, column: str) -> list[str]:
    """Texts of a column of the list."""
    return page.locator(f".rows > .row .{column}").all_text_contents()


def rows(page: Page) -> int:
    """Rows of the list."""
    return page.locator(".rows > .row").count()
