"""One event redacted: the fast way and the slow, obvious one."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from obs_assets.errors import ConfigurationError
from obs_assets.transforms.detectors import ENCODED, Span
from obs_assets.transforms.redact.config import RedactConfig
from obs_assets.transforms.redact.in_place import redact_in_place
from obs_assets.transforms.redact.mark import MARK_TRIGGER
from obs_assets.transforms.redact.rules import Rules, any_of, compiled
from obs_assets.transforms.redact.walk import Members, Walk, everywhere


class Outcome(NamedTuple):
    """What became of an event: its new text or None, the type of each value redacted, whether the redactor failed."""

    event: str | None = None
    types: tuple[str, ...] = ()
    failed: bool = False


_FAILED = Outcome("{}", (), failed=True)


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

    def redact(self, event: str) -> Outcome:
        """Redact one event by a walk to every string and number in it."""
        return _guarded(event, lambda: self._walk(event, everywhere(event)))

    def redact_hit(self, event: str) -> Outcome:
        """Redact one event, looking only where a trigger fires, and in place if that will do."""
        return _guarded(event, lambda: self._redact_hits(event))

    def _redact_hits(self, event: str) -> Outcome:
        text = event.encode() if event.isascii() else event  # of bytes, RE2 need not count characters
        hits = [match.span() for match in self.any_trigger.finditer(text)]
        outcome = redact_in_place(self.members, event, hits)
        return self._walk(event, hits) if outcome is None else Outcome(outcome[0], tuple(sorted(outcome[1])))

    def _walk(self, event: str, hits: list[Span]) -> Outcome:
        walk = Walk(self.members, event, hits)
        walk.run()
        return Outcome(walk.marked_text(), tuple(sorted(walk.types))) if walk.types else Outcome()


def _guarded(event: str, redact_it: Callable[[], Outcome]) -> Outcome:
    """The outcome for an event, a failed one if anything goes wrong."""
    if not event.lstrip().startswith("{"):
        return _FAILED
    try:
        return redact_it()
    except Exception:  # noqa: BLE001 - whatever went wrong, the event must not pass, and no message may quote it
        return _FAILED


@functools.lru_cache(maxsize=8)
def redactor_of(config: RedactConfig, hash_key: bytes | None) -> Redactor:
    """The redactor of a configuration, compiled once.

    Raises:
        ConfigurationError: ``hash`` without a key.
    """
    if "hash" in (config.mode, *config.modes.values()) and not hash_key:
        raise ConfigurationError("redact: mode hash needs a key: set OBS_HASH_KEY to a long random text")
    return Redactor(config, hash_key)
