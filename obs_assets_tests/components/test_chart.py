"""The picture of an hour on its materialization."""

from obs_assets.components.chart import chart
from obs_assets.hourly.profile import LEVELS

SHOWN_AT_ONCE = 1_000
"""Dagster's UI hides Markdown of so many characters behind a link (MarkdownMetadataEntry, 1.13)."""


CUT_AFTER = 64
"""Characters of a line that a partition's page shows."""


def minutes(**counts: int) -> str:
    return " ".join(str(counts.get(f"m{minute}", 0)) for minute in range(60))


def test_each_minute_has_a_block() -> None:
    """As high as its events beside the level's most; a minute without any is a dot, one with few is not."""
    lines = chart({"error": minutes(m0=1), "info": minutes(m0=1000, m1=1, m59=500)}).split("\n")
    fence, ruler, error, of_errors, info, of_infos, end = lines
    assert (fence, end) == ("```", "```")
    assert (error, of_errors) == ("error      1", "█" + "·" * 59)
    assert (info, of_infos) == ("info       1,501", "█▁" + "·" * 57 + "▄")
    assert [ruler.index(minute) for minute in (":00", ":15", ":30", ":45", ":59")] == [
        0,
        15,
        30,
        45,
        57,
    ]
    assert max(map(len, lines)) <= CUT_AFTER


def test_it_is_shown_at_once() -> None:
    """However many events and levels there are, and whatever stands in a level: it cannot end the block either."""
    levels = {
        f"```\n# level <b>{n}</b> and so on": " ".join(["99999999"] * 60)
        for n in range(LEVELS + 1)
    }
    text = chart(levels)
    assert len(text) < SHOWN_AT_ONCE
    assert text.count("```") == 2
    assert len(text.split("\n")) == 2 * (LEVELS + 1) + 3


def test_an_hour_without_events_has_no_picture() -> None:
    """It says so."""
    assert chart({}) == "no events"
