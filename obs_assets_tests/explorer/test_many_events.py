"""Every part of the page over 200,000 events that went through the whole pipeline."""

import json
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import psycopg
import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.api.process import running
from obs_assets_tests.explorer.conftest import WIDE, Seen, open_page, rows, settled, watch
from obs_assets_tests.frames import HOUR

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

HOURS = [Hour(HOUR.start + timedelta(hours=number)) for number in range(8)]
AN_HOUR = 25_000
TOTAL = AN_HOUR * len(HOURS)
TYPES = ("task_completed", "llm_call", "tool_call", "file_read", "task_failed")
LOST = "lost-1"
"""Id of an event of the level that the filter drops."""

RANGE = "from=2025-12-04T10:00&to=2025-12-04T18:00"
COLD_MS = 500

LOADED = """() => {
    const said = /([\\d,]+) rows/.exec(document.querySelector(".foot").textContent);
    return said ? Number(said[1].replace(",", "")) : 0;
}"""
"""The rows that the list has loaded; 0 while it loads more."""


def write_hour(path: Path, hour: Hour) -> None:
    """Append an hour: each fifth event is an error, traces have 20 events, each tenth has a cost."""
    step = timedelta(hours=1) / AN_HOUR
    with path.open("a") as file:
        for number in range(AN_HOUR):
            kind = TYPES[number % len(TYPES)]
            event = {
                "id": f"{hour.stamp}-{number}",
                "timestamp": (hour.start + number * step).isoformat(),
                "type": kind,
                "level": "error" if kind == "task_failed" else "info",
                "master": f"master-{number % 7}",
                "worker_id": f"worker-{number % 50}",
                "trace_id": f"{hour.stamp}{number // 20:05d}",
                "message": f"step {number} of the plan",
                "duration_ms": number % 5000,
                "usage": {"model": ("small", "large")[number % 2], "tokens": number},
            }
            if kind == "task_failed":
                event["error"] = f"tests timed out after {number % 600} s"
            if number % 10 == 0:
                event["cost_usd"] = number / 1e6
            file.write(json.dumps(event) + "\n")


@pytest.fixture(scope="module")
def address(
    servers: Settings,
    postgres_admin: "psycopg.Connection[tuple[object]]",
    s3_admin: "S3Client",
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """A server over the hours, landed, built and delivered to PostgreSQL and S3."""
    folder = tmp_path_factory.mktemp("many")
    with harness.own_place(servers, postgres_admin, s3_admin, folder / "data") as machine:
        yield from served(machine, folder)


def served(machine: Settings, folder: Path) -> Iterator[str]:
    """Address of a server over the hours."""
    file = folder / "events" / "agents.jsonl"
    file.parent.mkdir()
    for hour in HOURS:
        write_hour(file, hour)
    harness.write_events(file, [harness.at(HOUR, 9, {"id": LOST, "level": "debug"})])
    destinations = [{"type": "postgres"}, {"type": "s3"}]
    config = harness.everything_kept(
        file.parent,
        destinations=destinations,
        sample={"success_rate": 1.0, "default_rate": 1.0},
    )
    hourly = HourlyPipeline(config, machine)
    hourly.searched_table().init(reader="obs_reader")
    hourly.land()
    harness.build(hourly, *HOURS)
    pipelines = harness.write_pipeline(folder / "own", config)
    variables = harness.environment(machine) | {"OBS_PIPELINES_DIR": str(pipelines)}
    with running(hourly, folder, **variables) as (_, url):
        yield url


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """A minute for each expectation: counts of 200,000 events take seconds on a busy machine."""
    expect.set_options(timeout=60_000)
    yield
    expect.set_options(timeout=5_000)


@pytest.fixture
def seen(browser: Browser, address: str) -> Iterator[Seen]:
    """A page in a new context that has a minute for each answer."""
    context = browser.new_context(viewport=WIDE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(60_000)
    watched = Seen(context.new_page())
    watch(watched, address)
    yield watched
    context.close()
    assert (watched.errors, watched.foreign) == ([], [])


def test_the_list_the_bars_and_the_values(seen: Seen, address: str) -> None:
    """Counts are those of the events; pages go on to 2,000 rows and beyond; a bar zooms; a value filters."""
    page = open_page(seen, address, f"?{RANGE}")
    expect(page.locator("#summary")).to_contain_text(f"{TOTAL:,} rows", timeout=60_000)
    while (before := page.evaluate(LOADED)) < 2300:
        # The end of the list loads the next page by itself.
        page.locator(".middle").evaluate("element => element.scrollTo(0, 1e9)")
        page.wait_for_function(f"() => ({LOADED})() > {before}")
    assert rows(page) <= 2000
    chart = page.locator("#histogram")
    chart.get_by_role("button", name="Table").click()
    # The first column of figures counts rows.
    counts = chart.locator("tbody td:nth-child(2)").all_text_contents()
    assert sum(int(text.replace(",", "")) for text in counts) == TOTAL
    failed = page.locator(".facet", has_text="type").get_by_text("task_failed")
    failed.click()
    expect(page.locator("#summary")).to_contain_text(f"{TOTAL // 5:,} rows")
    chart.get_by_role("button", name="Zoom to 2025-12-04 12:00").click()
    page.wait_for_url("**from=2025-12-04T12:00:00Z**")
    settled(page)
    assert page.locator(".rows .time").first.text_content().startswith("12-04 12:")  # type: ignore[union-attr]


def test_an_event_its_neighbours_and_its_trace(seen: Seen, address: str) -> None:
    """Found by its message; tree, text, neighbours, the minutes around it, everything of its trace."""
    an_hour = "from=2025-12-04T12:00&to=2025-12-04T13:00"
    page = open_page(seen, address, f'?{an_hour}&q="timed out after 9 s"')
    page.locator(".rows > .row").first.click()
    details = page.locator("#details")
    expect(details.locator(".leaf", has_text="timed out after 9 s").first).to_be_visible()
    details.get_by_role("tab", name="Text", exact=True).click()
    expect(details.locator("pre")).to_contain_text('"trace_id"')
    details.get_by_role("tab", name="Context").click()
    expect(details.locator(".context li")).to_have_count(21)
    details.get_by_role("button", name="Same trace").click()
    expect(page.locator(".waterfall li")).to_have_count(20)
    page.go_back()
    details.get_by_role("button", name="Around it").click()
    settled(page)
    assert page.input_value("#q") == ""
    # Ten minutes are a sixth of an hour.
    expect(page.locator("#summary")).to_contain_text(re.compile(r"4,16[678] rows"))


def test_hours_lost_events_and_the_overview(seen: Seen, address: str) -> None:
    """Receipts add up, a filtered event is found, statistics are those of the events."""
    page = open_page(seen, address, f"?{RANGE}")
    trust = page.locator("#trust")
    expect(trust.locator(".legend")).to_have_text("8 settled")
    trust.get_by_role("button", name="Hours").click()
    trust.get_by_role("button", name="Receipt of 2025-12-04-10:00").click()
    expect(trust.locator(".receipt")).to_contain_text(f"{AN_HOUR + 1:,} events landed")
    expect(trust.locator(".receipt")).to_contain_text("filtered (level) 1")
    page.goto(f"{address}/?view=where&find=event_id:{LOST}")
    expect(page.locator(".place")).to_contain_text("The filter dropped it")
    page.goto(f"{address}/?view=overview&{RANGE}")
    expect(page.locator(".small-chart")).to_have_count(4)
    levels = page.locator(".figures", has=page.locator("h2", has_text="Levels"))
    error = levels.locator("tbody tr", has_text="error").locator("td").first
    expect(error).to_have_text(f"{TOTAL // 5:,}")
    page.goto(f"{address}/?{RANGE}&q=type:nothing")
    stages = page.locator("#empty .stages")
    expect(stages).to_contain_text(f"{TOTAL + 1:,} events landed")


def copied_as(page: Page, name: str) -> str:
    """The search in a form of the menu Copy."""
    # A hidden note has the text of the copy before.
    page.locator("#toast").evaluate("element => { element.textContent = ''; }")
    page.locator("#copy-button").click()
    page.get_by_role("menuitem", name=name).click()
    expect(page.locator("#toast")).to_contain_text("copied")
    page.locator("#toast").wait_for(state="hidden")
    return str(page.evaluate("navigator.clipboard.readText()"))


def test_every_copy_of_a_search(seen: Seen, address: str) -> None:
    """A link that opens the same rows, statements, commands, and a rule that fired in each hour."""
    page = open_page(seen, address, f"?{RANGE}&q=level:error master:master-3")
    expect(page.locator("#summary")).to_contain_text("rows")
    summary = page.locator("#summary b").text_content()
    texts = {
        name: copied_as(page, name)
        for name in ("Link", "curl", "SQL for psql", "Python", "DuckDB", "obs search", "rows")
    }
    for name, text in texts.items():
        assert "master-3" in text or name == "rows", name
    rule = copied_as(page, "Alert rule")
    # A busy machine does not try all of the hours within the time limit.
    assert re.search(r"fired in [1-8] hours?", rule)
    assert yaml.safe_load(rule)["rules"]
    page.goto(texts["Link"])
    settled(page)
    expect(page.locator("#summary b")).to_have_text(str(summary))


def test_live_and_states_of_a_slow_answer(seen: Seen, address: str) -> None:
    """The stream opens, says how old the newest hour is, and ends."""
    page = open_page(seen, address, f"?{RANGE}")
    page.click("#live-button")
    expect(page.locator("#live-button")).to_have_attribute("data-status", "live")
    expect(page.locator("#notice")).to_contain_text(
        "The newest stored hour is 2025-12-04 17:00"
    )
    page.click("#notice button")
    expect(page.locator("#notice")).to_be_hidden()


def test_the_first_paint_is_early(browser: Browser, address: str) -> None:
    """With a cold cache, in the median of five, the frame is painted and the rows are there."""
    paints, first_rows = [], []
    for _ in range(5):
        context = browser.new_context(viewport=WIDE)
        page = context.new_page()
        began = time.monotonic()
        page.goto(f"{address}/?{RANGE}", wait_until="commit")
        page.wait_for_selector(".rows > .row")
        first_rows.append(1000 * (time.monotonic() - began))
        entry = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        paints.append(page.evaluate(entry))
        context.close()
    print(f"first paint {[round(ms) for ms in paints]} ms")
    print(f"first rows {[round(ms) for ms in first_rows]} ms")
    assert median(paints) < COLD_MS
