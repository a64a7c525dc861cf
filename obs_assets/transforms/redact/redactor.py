"""One event redacted: the fast way and the slow, obvious one."""

import functools
from collections.abc import Sequence
from typing import Any

from obs_assets.errors import ConfigurationError
from obs_assets.transforms.detectors import ENCODED, Span
from obs_assets.transforms.redact.config import RedactConfig
from obs_assets.transforms.redact.in_place import FAILED, UNCHANGED, Outcome, redact_in_place, strings_hit
from obs_assets.transforms.redact.mark import MARK_TRIGGER
from obs_assets.transforms.redact.rules import Rules, any_of, compiled
from obs_assets.transforms.redact.walk import Members, Walk, everywhere


class Redactor:
    """Redacts events by one configuration.

    Args:
        config: what, where and how.
        hash_key: the key of ``hash`` tokens.
    """

    def __init__(self, config: RedactConfig, hash_key: bytes | None) -> None:
        self.members = Members(Rules(config, hash_key))
        triggers = (ENCODED, MARK_TRIGGER, *(detector.trigger for detector in self.members.rules.detectors))
        # One automaton for all outgrows the memory that DuckDB gives it, and runs at half the speed of two
        half = len(triggers) // 2
        self.prefilters = (any_of(triggers[:half]), any_of(triggers[half:]))
        self.any_trigger = compiled(any_of(triggers))
        self.late_trigger = compiled(self.prefilters[1])

    def redact(self, event: str) -> Outcome:
        """Redact one event by a walk to every string and number in it."""
        return self._walk(event, everywhere(event))

    def redact_hits(self, events: Sequence[str]) -> list[Outcome]:
        """Redact many events, looking only where a trigger fires, and in place where that will do; same order."""
        return self._each(events, self.any_trigger)

    def redact_late_hits(self, events: Sequence[str]) -> list[Outcome]:
        """The same for events in none of which the first prefilter fires: only the second one's triggers may."""
        return self._each(events, self.late_trigger)

    def _each(self, events: Sequence[str], trigger: Any) -> list[Outcome]:
        try:
            return self._redact_hits(events, trigger)
        except Exception:  # noqa: BLE001 - one of them is at fault, the others shall pass
            if len(events) == 1:
                return [FAILED]
        return [outcome for event in events for outcome in self._each([event], trigger)]

    def _redact_hits(self, events: Sequence[str], trigger: Any) -> list[Outcome]:
        # One step after the other for all events: a step at work stays in the processor's cache
        hits = [_hits(event, trigger) for event in events]
        strings = [strings_hit(event, spans) for event, spans in zip(events, hits, strict=True)]
        verdicts = self.members.judge_all(string[:2] for found in strings if found for string in found)
        outcomes = []
        for event, spans, found in zip(events, hits, strings, strict=True):
            outcome = redact_in_place(self.members, event, found, verdicts) if found else None
            outcomes.append(outcome or self._walk(event, spans))
        return outcomes

    def _walk(self, event: str, hits: list[Span]) -> Outcome:
        """Redact one event by a walk to what these spans touch."""
        if not event.lstrip().startswith("{"):
            return FAILED
        if not hits:
            return UNCHANGED
        try:
            walk = Walk(self.members, event, hits)
            walk.run()
            return Outcome(walk.marked_text(), tuple(sorted(walk.types))) if walk.types else UNCHANGED
        except Exception:  # noqa: BLE001 - whatever went wrong, the event must not pass, and no message may quote it
            return FAILED


def _hits(event: str, trigger: Any) -> list[Span]:
    """Where a trigger fires in an event."""
    text = event.encode() if event.isascii() else event  # of bytes, RE2 need not count characters
    return [match.span() for match in trigger.finditer(text)]


@functools.lru_cache(maxsize=8)
def redactor_of(config: RedactConfig, hash_key: bytes | None) -> Redactor:
    """The redactor of a configuration, compiled once.

    Raises:
        ConfigurationError: ``hash`` without a key.
    """
    if "hash" in (config.mode, *config.modes.values()) and not hash_key:
        raise ConfigurationError("redact: mode hash needs a key: set OBS_HASH_KEY to a long random text")
    return Redactor(config, hash_key)
