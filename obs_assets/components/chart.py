"""One small picture of an hour: its events by minute and level, drawn with block characters.

Text, not an image: Dagster's UI shows Markdown of fewer than 1,000 characters at once, and longer one after a click.
"""

from collections.abc import Iterator, Mapping

NOTHING, BLOCKS = "·", "▁▂▃▄▅▆▇█"

LABEL = 10
"""Characters of a level. It stands above its blocks: a partition's page cuts a line after some 65 characters."""

RULER = "".join(f":{minute:02}".ljust(15) for minute in (0, 15, 30, 45))[:-3] + ":59"


def chart(levels: Mapping[str, str]) -> str:
    """Markdown with two lines for each level: its events, and a block for each minute.

    Each line has its own scale: a few errors are to be seen beside a million others.

    Args:
        levels: level → the events of each minute, see `obs_assets.hourly.profile.by_minute`. After redaction only: a
            level is
            text of an event.
    """
    return "\n".join(["```", *_lines(levels), "```"]) if levels else "no events"


def _lines(levels: Mapping[str, str]) -> Iterator[str]:
    yield RULER
    for level, minutes in levels.items():
        counts = [int(n) for n in minutes.split()]
        highest = max(counts)
        bars = "".join(
            BLOCKS[-(-n * len(BLOCKS) // highest) - 1] if n else NOTHING for n in counts
        )
        yield f"{_label(level):{LABEL}} {sum(counts):,}"
        yield bars


def _label(level: str) -> str:
    return " ".join(level.replace("`", "'").split())[:LABEL]
