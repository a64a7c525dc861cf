"""A small chart of an hour: its events by minute and level, drawn with block characters.

It is text, not an image. Dagster's UI shows Markdown of fewer than 1,000 characters at once, and longer
Markdown only after a click.
"""

from collections.abc import Iterator, Mapping

NOTHING = "·"
"""A minute without events."""

BLOCKS = "▁▂▃▄▅▆▇█"
"""Minutes with events, from few to the most."""

LABEL = 10
"""Characters of a level. It is in a line above its blocks: the page of a partition cuts lines after about
65 characters."""

_QUARTERS = "".join(f":{minute:02}".ljust(15) for minute in (0, 15, 30, 45))

RULER = f"{_QUARTERS[:-3]}:59"
"""The minutes 0, 15, 30, 45 and 59, each above its block."""


def chart(levels: Mapping[str, str]) -> str:
    """Markdown with two lines for each level: its events, and a block for each minute.

    Each line has its own scale, so that a few errors are visible beside a million other events.

    Args:
        levels: level → numbers of events of each minute, see `obs_assets.hourly.profile.by_minute`. Use
            it only after redaction: a level is text of an event.
    """
    if not levels:
        return "no events"
    return "\n".join(["```", *_lines(levels), "```"])


def _lines(levels: Mapping[str, str]) -> Iterator[str]:
    yield RULER
    for level, minutes in levels.items():
        counts = [int(count) for count in minutes.split()]
        highest = max(counts)
        yield f"{_label(level):{LABEL}} {sum(counts):,}"
        yield "".join(_block(count, highest) for count in counts)


def _block(count: int, highest: int) -> str:
    """The block of a minute; any count above 0 has at least the lowest block."""
    if not count:
        return NOTHING
    height = -(-count * len(BLOCKS) // highest)  # eighths of the highest count, rounded up
    return BLOCKS[height - 1]


def _label(level: str) -> str:
    """A level as a single line that cannot end the block of Markdown."""
    return " ".join(level.replace("`", "'").split())[:LABEL]
