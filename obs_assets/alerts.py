"""Which events alert: rules over a frame. Pure; nothing is read or sent here.

A rule answers one question about one event. What follows from the answer, the life of an alert and its sending, belongs
to `obs_assets.delivery`.
"""

from collections.abc import Sequence

from pydantic import field_validator

from obs_assets.config import Block
from obs_assets.events import Frame, one_of, quote


class AlertRule(Block, frozen=True):
    """Events that somebody wants to hear of: those of one of the levels and one of the types.

    Attributes:
        name: goes into the dispatch's identity: a renamed rule is a new rule.
        levels: compared in lower case, ``warn`` is ``warning``; empty for every event, one without a level included.
        types: compared exactly; empty for every type.
    """

    name: str = "errors"
    levels: tuple[str, ...] = ("error", "critical", "fatal")
    types: tuple[str, ...] = ()

    @field_validator("levels")
    @classmethod
    def _as_in_frames(cls, levels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple("warning" if level.lower() == "warn" else level.lower() for level in levels)


def matching(frame: Frame, rule: AlertRule) -> Frame:
    """The rows that a rule matches, all columns, in the frame's order.

    Args:
        frame: with the promoted columns, see `obs_assets.events.PROMOTED`.
        rule: a disabled one matches nothing.
    """
    return frame.filter(_condition(rule))


def with_rule(frame: Frame, rules: Sequence[AlertRule]) -> Frame:
    """Every row, in order, with the name of the first rule that matches it in ``rule`` (VARCHAR, NULL for none).

    First means only: an event that two rules of one destination match is sent once.
    """
    cases = " ".join(f"WHEN {_condition(rule)} THEN {quote(rule.name)}" for rule in rules)
    return frame.project(f"*, {f'CASE {cases} END' if cases else 'NULL::VARCHAR'} AS rule")


def _condition(rule: AlertRule) -> str:
    """SQL: true or false, never NULL."""
    if not rule.enabled:
        return "false"
    conditions = {"event_level": rule.levels, "event_type": rule.types}
    return " AND ".join([one_of(column, values) for column, values in conditions.items() if values]) or "true"
