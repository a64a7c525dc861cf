"""What the page knows of hours and events that the table does not have: strip, receipts, empty ranges, whereabouts."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from playwright.sync_api import expect
from psycopg import sql

from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.api.process import running
from obs_assets_tests.explorer.conftest import Seen, open_page, rows, settled
from obs_assets_tests.frames import HOUR

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

RANGE = "from=2025-12-04T10:00&to=2025-12-04T13:00"


@pytest.fixture(scope="module")
def events_file(folder: Path) -> Path:
    """The file of events."""
    return folder / "events" / "a.jsonl"


@pytest.fixture(scope="module")
def address(
    servers: Settings,
    postgres_admin: "psycopg.Connection[tuple[object]]",
    folder: Path,
    events_file: Path,
) -> Iterator[str]:
    """A server over hours of a whole pipeline: settled, missing, replaced; and a dead letter."""
    assert servers.postgres
    name = f"trust-{secrets.token_hex(6)}"
    database = sql.Identifier(name)
    postgres_admin.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(database))
    config = pipeline.parse(
        {
            "source": {"events_dir": str(folder / "events")},
            "filter": {"drop_levels": ["debug"]},
            "sample": {"success_rate": 0.1, "default_rate": 0.1},
            "destinations": [
                {"type": "postgres"},
                {
                    "type": "webhook",
                    "rules": [
                        {"name": "late", "types": ["late"], "above": 0, "by": ["event_type"]}
                    ],
                },
            ],
        }
    )
    settings = Settings(
        data_dir=folder / "data",
        postgres=servers.postgres.model_copy(update={"database": name}),
    )
    hourly = HourlyPipeline(config, settings)
    hourly.searched_table().init(reader="obs_reader")
    land_and_build(hourly, events_file)
    pipelines = harness.write_pipeline(folder / "own", config)
    variables = {
        "OBS_PIPELINES_DIR": str(pipelines),
        "OBS_DAGSTER_URL": "http://127.0.0.1:3000/",
    }
    with running(hourly, folder, **variables) as (_, url):
        yield url
    postgres_admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))


def land_and_build(hourly: HourlyPipeline, file: Path) -> None:
    """10:00 is stored, 11:00 has landed only, 12:00 is stored and replaced after a late event."""
    missing, late = HOUR.next, HOUR.next.next
    for hour in (HOUR, missing, late):
        harness.write_events(file, harness.an_hour(hour))
    with file.open("a") as appended:
        appended.write('{"id": "broken", \n')
    hourly.land()
    harness.build(hourly, HOUR, late)
    harness.write_events(file, [harness.at(late, 3000, {"type": "late", "error": "too late"})])
    hourly.land()
    harness.build(hourly, late)


def test_each_hour_has_its_state_and_its_receipt(seen: Seen, address: str) -> None:
    """Strip, list and receipt; the counts add up; a link leads to the partition in Dagster."""
    page = open_page(seen, address, f"?{RANGE}")
    trust = page.locator("#trust")
    expect(trust.locator(".legend")).to_have_text("1 missing2 settled1 replaced")
    trust.get_by_role("button", name="Hours").click()
    expect(trust.locator("tbody tr")).to_have_count(3)
    trust.get_by_role("button", name="Receipt of 2025-12-04-12:00").click()
    receipt = trust.locator(".receipt")
    expect(receipt).to_contain_text("35 events landed")
    expect(receipt).to_contain_text("replaced")
    expect(receipt.locator("tbody tr")).to_have_count(4)
    expect(receipt).to_contain_text("filtered (level) 3")
    checks = receipt.locator("tbody td:last-child").all_text_contents()
    assert checks == ["✓ adds up"] * 4
    link = receipt.get_by_role("link", name="Partition in Dagster")
    assert link.get_attribute("href") == (
        "http://127.0.0.1:3000/assets/sampled_events?view=partitions&partition=2025-12-04-12%3A00"
    )
    receipt.get_by_role("button", name="Only this hour").click()
    page.wait_for_url("**from=2025-12-04T12:00:00Z&to=2025-12-04T13:00:00Z**")


def test_an_empty_range_says_where_its_events_went(seen: Seen, address: str) -> None:
    """Landed, dropped by each reason, waiting, stored, matching; terms can be left out."""
    page = open_page(seen, address, f"?{RANGE}&q=level:debug type:nothing")
    stages = page.locator("#empty .stages")
    expect(stages).to_contain_text("In these 3 hours 103 events landed")
    expect(stages).to_contain_text("34 not loaded yet")
    expect(stages.locator("li", has_text="filtered (level)")).to_contain_text("6")
    expect(stages.locator("li", has_text="match the query")).to_contain_text("0")
    expect(
        page.locator("#empty").get_by_role("button", name="Without level:debug")
    ).to_be_visible()


def test_where_an_event_is(seen: Seen, address: str, events_file: Path) -> None:
    """Stored, sampled out, filtered by hour, waiting, dead at its place in the file, and not known."""
    answer = httpx.get(f"{address}/api/v1/events?{RANGE}&limit=1000").json()
    kept = {event["event_id"] for event in answer["events"]}
    lost = next(f"evt-{number}" for number in range(20) if f"evt-{number}" not in kept)
    page = seen.page
    page.goto(f"{address}/?view=where")

    def looked_up(value: str) -> str:
        page.fill("#where-value", value)
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelector('.place')")
        return "\n".join(page.locator(".place").all_text_contents())

    assert "Sampling dropped it (success)" in looked_up(lost)
    assert "find=event_id:" in page.url
    page.goto(f"{address}/?view=where&find=event_id:err-1")
    expect(page.locator(".place").first).to_contain_text("stored")
    expect(page.locator(".place", has_text="waiting")).to_have_count(0)
    page.goto(f"{address}/?view=where&find=event_id:nobody")
    expect(page.locator(".place")).to_contain_text("No such event is known")
    offset = sum(map(len, events_file.read_bytes().splitlines(keepends=True)[:102]))
    page.goto(f"{address}/?view=where&find=file:a.jsonl&offset={offset}")
    expect(page.locator(".place")).to_contain_text("It is a dead letter: not_json")
    page.goto(f"{address}/?view=where&find=event_id:err-1")
    page.get_by_role("button", name="Open the event").first.click()
    expect(page.locator("#details .leaf", has_text="err-1").first).to_be_visible()


def test_a_link_to_an_event_that_is_gone_says_why(seen: Seen, address: str) -> None:
    """Its hour was replaced: the page says so, with the counts of the hour."""
    page = seen.page
    page.goto(f"{address}/?{RANGE}&event=1764849600250000-{'0' * 32}")
    problem = page.locator("#details [role=alert]")
    expect(problem).to_contain_text("since the hour was replaced at")
    expect(problem).to_contain_text("Its hour 2025-12-04-12:00 is settled")
    expect(problem).to_contain_text("replaced")
    assert rows(page) > 0


def test_the_overview(seen: Seen, address: str) -> None:
    """Cards, four charts, tables by type, level and master with weighted counts; a value opens its events."""
    page = seen.page
    page.goto(f"{address}/?view=overview&{RANGE}")
    expect(page.locator(".card")).to_have_count(6)
    expect(page.locator(".small-chart")).to_have_count(4)
    alerts = page.get_by_role("region", name="Alerts")
    firing = alerts.locator("tbody tr")
    expect(firing).to_have_count(1)
    expect(firing).to_contain_text("webhook_alerts")
    expect(firing).to_contain_text("late")
    expect(firing).to_contain_text("firing, ")
    expect(alerts).to_contain_text("Messages of the last 24 hours")
    levels = page.locator(".figures", has=page.locator("h2", has_text="Levels"))
    row = levels.locator("tbody tr", has_text="error")
    expect(row.locator("td").nth(0)).to_have_text("10")
    row.get_by_role("button", name="error").click()
    settled(page)
    assert rows(page) == 10
    assert page.input_value("#q") == "level:error"
