"""Count the rooms of obs_assets and the arrows between them, and draw them.

A room is a folder or a loose module directly below ``obs_assets/``. An arrow goes from a room to
each room that one of its files imports. A room stands one floor above the highest room that it
imports. An arrow points upwards where rooms import each other in a circle.

    python scripts/architecture.py           # print the figures and draw docs/images/architecture.svg
    python scripts/architecture.py --print   # print the figures only
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PACKAGE = "obs_assets"
PICTURE = PROJECT / "docs" / "images" / "architecture.svg"

Arrows = Mapping[str, set[str]]
"""Room → the rooms that it imports."""

ROOM_HEIGHT, FLOOR_HEIGHT = 34, 78
LETTER_WIDTH, GAP = 8, 30
MARGIN = 24
"""Pixels."""


def room_of(module: str) -> str:
    """The room of a module: ``obs_assets.sources.log`` is in ``sources``."""
    return [*module.split("."), ""][1]


def files() -> Iterator[tuple[str, Path]]:
    """Every module of the package and its file."""
    for path in sorted((PROJECT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(PROJECT).with_suffix("").parts
        names = parts[:-1] if parts[-1] == "__init__" else parts
        yield ".".join(names), path


def imports(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (
                alias.name for alias in node.names if alias.name.startswith(PACKAGE + ".")
            )
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            yield from (f"{PACKAGE}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE + "."):
            yield str(node.module)


def find_arrows() -> dict[str, set[str]]:
    """The arrows between rooms; a room that imports no other has an empty set."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for module, path in files():
        room = room_of(module)
        if room:  # the package's own __init__ only hands names on
            found[room] |= {room_of(name) for name in imports(path)} - {room, ""}
    return dict(found)


def loose_modules() -> list[str]:
    """Modules that lie directly below the package, without its ``__init__``."""
    found = (PROJECT / PACKAGE).glob("*.py")
    return sorted(path.stem for path in found if path.stem != "__init__")


def reachable(arrows: Arrows, room: str) -> set[str]:
    """The rooms that a room imports, directly or through others."""
    found: set[str] = set()
    waiting = [*arrows[room]]
    while waiting:
        next_room = waiting.pop()
        if next_room not in found:
            found.add(next_room)
            waiting += arrows[next_room]
    return found


def upward_arrows(arrows: Arrows) -> list[tuple[str, str]]:
    """The arrows within circles."""
    below = {room: reachable(arrows, room) for room in arrows}
    pairs = [(room, other) for room in arrows for other in sorted(arrows[room])]
    return [(room, other) for room, other in pairs if room in below[other]]


def floors(arrows: Arrows) -> dict[str, int]:
    """The floor of each room, from 1; arrows within circles are left out."""
    upward = set(upward_arrows(arrows))
    found: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in found:
            below = [other for other in arrows[room] if (room, other) not in upward]
            found[room] = 1 + max((floor(other) for other in below), default=0)
        return found[room]

    for room in arrows:
        floor(room)
    return found


def direct(arrows: Arrows) -> list[tuple[str, str]]:
    """The arrows without those that a longer way through other rooms implies: they are drawn dark."""
    found = []
    for room, others in sorted(arrows.items()):
        implied = {far for other in others for far in reachable(arrows, other)}
        found += [(room, other) for other in sorted(others - implied)]
    return found


def report(arrows: Arrows) -> str:
    """The figures, then the rooms by floor."""
    levels = floors(arrows)
    lines = [
        f"{len(arrows)} rooms on {max(levels.values())} floors",
        f"{len(loose_modules())} loose modules: {', '.join(loose_modules())}",
        f"{sum(map(len, arrows.values()))} arrows between rooms",
        f"{len(upward_arrows(arrows))} arrows upwards {upward_arrows(arrows) or ''}".rstrip(),
    ]
    for level in range(max(levels.values()), 0, -1):
        rooms = sorted(room for room, found in levels.items() if found == level)
        lines.append(f"  floor {level:>2}  {', '.join(rooms)}")
    return "\n".join(lines)


def draw(arrows: Arrows) -> str:
    """The picture as SVG: floors from top to bottom, arrows downwards, implied arrows faint."""
    levels = floors(arrows)
    top = max(levels.values())
    rows = [
        sorted(room for room, found in levels.items() if found == level)
        for level in range(top, 0, -1)
    ]
    width = max(_row_width(row) for row in rows) + 2 * MARGIN + 200
    height = len(rows) * FLOOR_HEIGHT + 2 * MARGIN
    places: dict[str, tuple[float, float, float]] = {}
    for number, row in enumerate(rows):
        # Every other floor stands aside, so that arrows pass beside rooms instead of behind them
        aside = 90 if number % 2 else -90
        x = (width - _row_width(row)) / 2 + aside
        for room in row:
            places[room] = (x, MARGIN + number * FLOOR_HEIGHT, _room_width(room))
            x += _room_width(room) + GAP
    dark = set(direct(arrows))
    pairs = [(room, other) for room in sorted(arrows) for other in sorted(arrows[room])]
    faint = [pair for pair in pairs if pair not in dark]
    lines = [_line(places[room], places[other], "#e3e3ea") for room, other in faint]
    lines += [_line(places[room], places[other], "#4a5a8a") for room, other in sorted(dark)]
    rooms = [_box(room, *place) for room, place in sorted(places.items())]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            'font-family="sans-serif" font-size="14">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#4a5a8a"/></marker></defs>',
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
            *lines,
            *rooms,
            "</svg>",
            "",
        ]
    )


def _row_width(row: list[str]) -> float:
    return sum(_room_width(room) + GAP for room in row) - GAP


def _room_width(room: str) -> float:
    return LETTER_WIDTH * len(room) + 30


def _line(
    start: tuple[float, float, float], end: tuple[float, float, float], colour: str
) -> str:
    x1, y1 = start[0] + start[2] / 2, start[1] + ROOM_HEIGHT
    x2, y2 = end[0] + end[2] / 2, end[1]
    tip = ' marker-end="url(#tip)"' if colour == "#4a5a8a" else ""
    where = f'x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"'
    return f'<line {where} stroke="{colour}" stroke-width="1.3"{tip}/>'


def _box(room: str, x: float, y: float, width: float) -> str:
    is_folder = (PROJECT / PACKAGE / room).is_dir()
    colour = "#dbe6ff" if is_folder else "#f4f1e6"
    name = f"{room}/" if is_folder else room
    box = f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{ROOM_HEIGHT}" rx="6" '
    text = f'<text x="{x + width / 2:.0f}" y="{y + 22:.0f}" text-anchor="middle">{escape(name)}</text>'
    return f'{box}fill="{colour}" stroke="#8a93ad"/>{text}'


def main() -> None:
    """Print the figures, and draw the picture unless told not to."""
    arrows = find_arrows()
    print(report(arrows))
    if "--print" not in sys.argv[1:]:
        PICTURE.write_text(draw(arrows))


if __name__ == "__main__":
    main()
