"""Joins lines that a log carrier cut, by file and stream: Docker cuts after 16 KiB, the kubelet marks ``P`` and ``F``.

A joined event begins at its first piece. Its length is the sum of the lengths of its pieces, and their byte ranges are
kept as a list. While a piece waits for the next piece of its stream, all later bytes of the file wait too, as behind an
incomplete line: between the pieces of a stream are pieces of other streams.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from obs_assets.sources.formats.base import Event


@dataclass(frozen=True)
class Piece:
    """A piece of a line.

    Attributes:
        begin, end: byte offsets in the file.
        stream: stream of the piece.
        is_whole: False if the line continues in the next piece of the stream.
    """

    begin: int
    end: int
    stream: str
    is_whole: bool


@dataclass(frozen=True)
class Joined:
    """Result of joining pieces.

    Attributes:
        events: for each complete event, the indexes of its pieces in the sequence.
        partial: indexes in ``events`` of events without their last piece, which never came.
        waits_from: offset from which on the file waits for more bytes; None if nothing waits.
    """

    events: tuple[tuple[int, ...], ...]
    partial: tuple[int, ...]
    waits_from: int | None


class Ranged(Protocol):
    """A range of bytes."""

    @property
    def begin(self) -> int:
        """Position of its first byte."""

    @property
    def end(self) -> int:
        """Position after its last byte."""


def ranges_of(pieces: Iterable[Ranged], shift: int = 0) -> tuple[int, ...]:
    """Begin and end of each piece, in order.

    Args:
        pieces: pieces of an event, in the order of the file.
        shift: difference between the byte offsets in the file and the positions of the pieces.

    >>> ranges_of([Piece(0, 4, "out", False), Piece(9, 12, "out", True)])
    (0, 4, 9, 12)
    """
    ends = ((piece.begin + shift, piece.end + shift) for piece in pieces)
    return tuple(itertools.chain.from_iterable(ends))


def without(event: Event, names: Sequence[str]) -> Event:
    """The event without the fields that mark its pieces.

    >>> without({"log": "done", "partial": True}, ["partial"])
    {'log': 'done'}
    """
    return {name: value for name, value in event.items() if name not in names}


def join(pieces: Sequence[Piece], *, waits: bool, max_bytes: int) -> Joined:
    """Join pieces of a file.

    Args:
        pieces: the pieces, in the order of the file.
        waits: whether more bytes may come.
        max_bytes: a longer event is given up. A piece is given up too, if more bytes than this wait behind it.
    """
    done: list[tuple[int, ...]] = []
    partial: set[tuple[int, ...]] = set()
    open_: dict[str, list[int]] = {}
    for place, piece in enumerate(pieces):
        group = open_.setdefault(piece.stream, [])
        group.append(place)
        is_too_long = sum(pieces[one].end - pieces[one].begin for one in group) > max_bytes
        if piece.is_whole or is_too_long:
            done.append(tuple(open_.pop(piece.stream)))
            if not piece.is_whole:
                partial.add(done[-1])
    last = pieces[-1].end if pieces else 0
    unfinished = [tuple(group) for group in open_.values()]
    waiting = [
        group for group in unfinished if waits and last - pieces[group[0]].begin <= max_bytes
    ]
    partial.update(group for group in unfinished if group not in waiting)
    done += [group for group in unfinished if group not in waiting]
    waits_from = min((pieces[group[0]].begin for group in waiting), default=None)
    waits_from = _before_whole_events(pieces, done, waits_from)
    events = sorted(
        group for group in done if waits_from is None or pieces[group[0]].begin < waits_from
    )
    return Joined(
        tuple(events),
        tuple(n for n, group in enumerate(events) if group in partial),
        waits_from,
    )


def _before_whole_events(
    pieces: Sequence[Piece], groups: Sequence[tuple[int, ...]], waits_from: int | None
) -> int | None:
    """The last offset, at or before this offset, that is not inside any event."""
    for begin, end in sorted(_spans(pieces, groups), reverse=True):
        if waits_from is not None and begin < waits_from < end:
            waits_from = begin
    return waits_from


def _spans(
    pieces: Sequence[Piece], groups: Sequence[tuple[int, ...]]
) -> Iterator[tuple[int, int]]:
    for group in groups:
        if len(group) > 1:
            yield pieces[group[0]].begin, pieces[group[-1]].end
