"""Hours that retention dropped: the page offers the archive, and tries a rule on frames of this machine."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, expect

from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.api.process import running
from obs_assets_tests.explorer.conftest import WIDE, Seen, open_page, watch
from obs_assets_tests.frames import HOUR

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ODD = '<script>alert(1)</script> "\u202e"'


@pytest.fixture
def address(settings: Settings, tmp_path: Path) -> Iterator[str]:
    """A server whose only hour is in the archive."""
    events = tmp_path / "events"
    odd = harness.at(HOUR, 60, {"type": "odd", "error": ODD})
    harness.write_events(events / "a.jsonl", [*harness.an_hour(HOUR), odd])

    def made(**options: object) -> HourlyPipeline:
        blocks = [{"type": "postgres", **options}, {"type": "s3"}]
        config = {"source": {"events_dir": str(events)}, "destinations": blocks}
        return HourlyPipeline(pipeline.parse(config), settings)

    hourly = made()
    hourly.searched_table().init(reader="obs_reader")
    hourly.land()
    harness.build(hourly, HOUR)
    after = made(retention_days=1)
    after.searched_table().upkeep.drop_expired(datetime.now(UTC))
    pipelines = harness.write_pipeline(tmp_path / "own", after.config)
    variables = harness.environment(settings) | {"OBS_PIPELINES_DIR": str(pipelines)}
    with running(after, tmp_path, **variables) as (_, url):
        yield url


@pytest.fixture
def seen(browser: Browser, address: str) -> Iterator[Seen]:
    """A page in a new context."""
    context = browser.new_context(viewport=WIDE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    watched = Seen(context.new_page())
    watch(watched, address)
    yield watched
    context.close()
    assert (watched.errors, watched.foreign) == ([], [])


def test_an_expired_hour_is_searched_in_the_archive(seen: Seen, address: str) -> None:
    """One button away; the answer says what was read, and text of events is text.

    The search is copied as an alert rule that was tried on the hour.
    """
    page = open_page(seen, address, "?from=2025-12-04T10:00&to=2025-12-04T11:00&q=type:odd")
    empty = page.locator("#empty")
    empty.get_by_role("button", name="Search the archive").click()
    expect(empty.locator(".archive .sentence")).to_contain_text(
        "1 event found, 1 archived hour"
    )
    line = empty.locator(".archived details")
    expect(line.locator("summary")).to_contain_text("<script>alert(1)</script>")
    line.locator("summary").click()
    expect(line.locator("pre")).to_contain_text("‹U+202E›")
    page.locator("#copy-button").click()
    page.get_by_role("menuitem", name="Alert rule").click()
    expect(page.locator("#toast")).to_have_text("alert rule copied", timeout=30_000)
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "tried on 1 hour from 2025-12-04T10:00:00" in copied
    assert "would have fired in 1 hour, with 1 message." in copied
    assert yaml.safe_load(copied)["rules"][0]["where"] == ["event_type == odd"]
