"""Redaction of events: a fast way for many events, and a slow, simple way for a single event."""

import bisect
import functools
import gc
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from obs_assets.errors import ConfigurationError
from obs_assets.transforms.detectors import Span
from obs_assets.transforms.detectors.encodings import ENCODED
from obs_assets.transforms.redact.config import RedactConfig
from obs_assets.transforms.redact.in_place import (
    FAILED,
    UNCHANGED,
    Hit,
    Outcome,
    redact_in_place,
    strings_hit,
)
from obs_assets.transforms.redact.mark import MARK_TRIGGER
from obs_assets.transforms.redact.rules import (
    ALL_GROUPS,
    Rules,
    any_of,
    automata,
    compiled,
)
from obs_assets.transforms.redact.walk import Member, Members, Walk, everywhere

if TYPE_CHECKING:
    import pyarrow as pa


Hits = tuple[str, list[Hit]]
"""An event, and where triggers fire in its text, from left to right."""

_one_at_a_time = threading.Lock()
"""Lets a thread finish its vector before another starts: switching within a vector costs a fifth of the speed."""


@contextmanager
def _no_cyclic_garbage() -> Iterator[None]:
    """Turn off the cyclic garbage collector: a vector makes ten thousands of short-lived objects, without cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Redactor:
    """Redacts events with a configuration.

    Args:
        config: the ``redact`` block of the pipeline.
        hash_key: the key of ``hash`` tokens; needed only for the mode ``hash``.
    """

    def __init__(self, config: RedactConfig, hash_key: bytes | None) -> None:
        self.members = Members(Rules(config, hash_key))
        detectors = self.members.rules.detectors
        others, *rest = [
            [detectors[position].trigger for position in together]
            for together in automata(detectors)
        ]
        together = [MARK_TRIGGER, ENCODED, *others], *rest
        self.triggers = [
            (1 << group, compiled(any_of(triggers)))
            for group, triggers in enumerate(together)
            if triggers
        ]
        self.fires_always = any(trigger.search("") is not None for _, trigger in self.triggers)

    def redact(self, event: str) -> Outcome:
        """Redact an event by a walk to every string and number in it."""
        return self._walk(event, everywhere(event))

    def redact_all(self, events: "pa.StringArray") -> dict[int, Outcome]:
        """Redact many events. Only the parts of an event in which a trigger fires are examined.

        Args:
            events: texts of JSON objects, without nulls.

        Returns:
            number of the event, from 0 → outcome, for each event with a trigger. The other events are unchanged.
        """
        hits = self.hits_in(events)
        with _one_at_a_time, _no_cyclic_garbage():
            return dict(zip(hits, self._redact_each(list(hits.values())), strict=True))

    def hits_in(self, events: "pa.StringArray") -> dict[int, Hits]:
        """The spans in which triggers fire, by the number of the event.

        RE2 searches the memory of all events at once, where nothing separates two events. A match that crosses the end
        of an event may be wrong, and it may hide a right match. Such events are searched again, each by itself.
        """
        if self.fires_always:
            return {
                number: (event, [(0, len(event), ALL_GROUPS)])
                for number, event in enumerate(events.to_pylist())
            }
        _, offsets, buffer = events.buffers()
        absolute = np.frombuffer(offsets, np.int32)[
            events.offset : events.offset + len(events) + 1
        ]
        text = memoryview(buffer or b"")[absolute[0] : absolute[-1]]
        bounds = (absolute - absolute[0]).tolist()
        found: dict[int, list[Hit]] = {}
        doubtful: set[int] = set()
        end = 0
        for start, stop, group in self._spans(text):
            if start >= end:
                number = bisect.bisect_right(bounds, start) - 1
                begin, end = bounds[number], bounds[number + 1]
                hits_here = found[number] = []
            hits_here.append((start - begin, stop - begin, group))
            if stop > end:
                doubtful.update(range(number, bisect.bisect_left(bounds, stop)))
        hits: dict[int, Hits] = {}
        for number in found.keys() | doubtful:
            event = str(text[bounds[number] : bounds[number + 1]], "utf-8")
            is_sure = number not in doubtful and event.isascii()
            spans = found[number] if is_sure else self._spans(event)
            if spans:
                hits[number] = event, spans
        return hits

    def _spans(self, text: str | memoryview) -> list[Hit]:
        """Where triggers fire in a text, from left to right."""
        found: list[Hit] = []
        for group, trigger in self.triggers:
            spans = [match.span() for match in trigger.finditer(text)]
            found += [(start, end, group) for start, end in spans]
        found.sort()
        return found

    def _redact_each(self, hits: Sequence[Hits]) -> list[Outcome]:
        """Redact events at their hits; outcomes are in the order of the events."""
        try:
            return self._redact_hits(hits)
        except Exception:  # noqa: BLE001 - a single event is at fault, and the other events have to pass
            if len(hits) == 1:
                return [FAILED]
        return [outcome for one in hits for outcome in self._redact_each([one])]

    def _redact_hits(self, hits: Sequence[Hits]) -> list[Outcome]:
        """Redact events in place where possible, and the others by a walk."""
        # Each step runs over all events before the next step, so that its code stays in the processor's cache
        groups: dict[Member, int] = {}
        strings = [strings_hit(event, spans, groups) for event, spans in hits]
        verdicts = self.members.judge_all(groups)
        outcomes = []
        for (event, spans), found in zip(hits, strings, strict=True):
            outcome = redact_in_place(self.members, event, found, verdicts) if found else None
            outcomes.append(
                outcome or self._walk(event, [(start, end) for start, end, _ in spans])
            )
        return outcomes

    def _walk(self, event: str, hits: list[Span]) -> Outcome:
        """Redact an event by a walk to the members that these spans touch."""
        if not event.lstrip().startswith("{"):
            return FAILED
        if not hits:
            return UNCHANGED
        try:
            walk = Walk(self.members, event, hits)
            walk.run()
            if walk.secrets and (again := walk.left_elsewhere()):
                walk = Walk(self.members, event, everywhere(event), again=again)
                walk.run()
                event = walk.marked_text()
                # Without the secret, the text behind it may be the beginning of a value
                more = self._walk(event, everywhere(event))
                if more.event is not None:
                    return more._replace(types=(*walk.types, *more.types))
            return (
                Outcome(walk.marked_text(), tuple(walk.types), recompute=True)
                if walk.types
                else UNCHANGED
            )
        except Exception:  # noqa: BLE001 - after any error the event must not pass, and no message may quote it
            return FAILED


@functools.lru_cache(maxsize=8)
def redactor_of(config: RedactConfig, hash_key: bytes | None) -> Redactor:
    """The redactor of a configuration; it is compiled once and then reused.

    Raises:
        ConfigurationError: ``hash`` without a key.
        EngineError: the self-test of redaction failed.
    """
    # Imported here, since the self-test imports this module
    from obs_assets.transforms.redact.self_test import check_engine

    check_engine()
    if "hash" in (config.mode, *config.modes.values()) and not hash_key:
        raise ConfigurationError(
            "redact: mode hash needs a key: set OBS_HASH_KEY to a long random text"
        )
    return Redactor(config, hash_key)
