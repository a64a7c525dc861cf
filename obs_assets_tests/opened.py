"""Which files this process opens: Python itself says so, whatever code opens them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_watched: list[tuple[str, list[str]]] = []
"""A folder or file, and the paths of what was opened there."""


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if (
        event != "open"
        or not _watched
        or not isinstance(arguments[0], str | bytes | os.PathLike)
    ):
        return
    path = os.fsdecode(arguments[0])
    for place, opened in _watched:
        if path == place or path.startswith(f"{place}/"):
            opened.append(path)


@contextmanager
def opened_below(place: Path) -> Iterator[list[str]]:
    """Within the block, the list grows by the path of each file that is opened: ``place`` itself, or below it."""
    if not _hooked:
        sys.addaudithook(_note)  # which cannot be taken away again
        _hooked.append(True)
    watch: tuple[str, list[str]] = (str(place), [])
    _watched.append(watch)
    try:
        yield watch[1]
    finally:
        _watched.remove(watch)


_hooked: list[bool] = []
