"""The life of alerts: measurements of hours, in event-time order, become the state of every alert after each hour.

A state is a function of the stored measurements alone, whatever the order in which hours were built: an hour that is
built anew is folded again together with those after it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Literal, TypeAlias

from obs_assets.alerts.evaluate import Evaluation, Group, Measurement, value_of
from obs_assets.alerts.rules import ADDITIVE, KNOWN_HOURS, AlertRule
from obs_assets.hours import Hour

History: TypeAlias = Mapping[Hour, Evaluation]
"""The hours that were evaluated. One that is not there is unknown, not empty."""


@dataclass(frozen=True)
class AlertState:
    """One alert after one hour. An alert that neither fires nor is about to has no state.

    Attributes:
        rule: its name.
        definition: of the rule.
        group: values of the rule's ``by``.
        status: ``pending`` while it must hold for longer.
        since: the first hour of the condition; together with rule and group the identity of an episode.
        held_hours: consecutive hours that the condition held.
        calm_hours: consecutive hours, the last included, that a firing alert was calm.
        value: of the last hour that was judged.
        minute: where in that hour the worst window begins.
    """

    rule: str
    definition: str
    group: Group
    status: Literal["pending", "firing"]
    since: Hour
    held_hours: int
    calm_hours: int = 0
    value: float | None = None
    minute: int | None = None


States: TypeAlias = Mapping[str, AlertState]
"""Fingerprint → state."""


@dataclass(frozen=True)
class Verdict:
    """What an hour says of a group."""

    breached: bool
    calm: bool
    value: float | None
    minute: int | None = None


def fingerprint(rule: str, group: Group) -> str:
    """The identity of an alert: a hash of rule and group."""
    return hashlib.sha256(json.dumps([rule, *group]).encode()).hexdigest()[:32]


def fold(
    rules: Sequence[AlertRule], history: History, before: States, first: Hour, closed_until: Hour
) -> Iterator[tuple[Hour, States]]:
    """The states after each evaluated hour from ``first`` on.

    Args:
        rules: as they are now; states of other definitions are forgotten.
        history: the hours from ``first`` on, and those before that the rules look back to.
        before: the states after the last evaluated hour before ``first``.
        closed_until: hours before it are closed. Of an open hour only an excess is believed: it can still calm nothing.
    """
    known = {rule.definition: rule for rule in rules if rule.measures and rule.enabled}
    states = {key: state for key, state in before.items() if state.definition in known}
    for hour in sorted(hour for hour in history if hour >= first):
        after: dict[str, AlertState] = {}
        for definition, rule in known.items():
            mine = {state.group: state for state in states.values() if state.definition == definition}
            if definition in history[hour]:
                mine = _step(rule, mine, judge(rule, history, hour, mine, closed=hour < closed_until), hour)
            after.update({fingerprint(rule.name, group): state for group, state in mine.items()})
        states = after
        yield hour, states


def refold(
    rules: Sequence[AlertRule],
    blocks: Iterable[tuple[History, Mapping[Hour, States]]],
    before: States,
    *,
    first: Hour,
    closed_until: Hour,
    reach: Hour,
) -> Iterator[tuple[Hour, States]]:
    """Fold from a changed hour on, up to the first hour after which nothing can differ from what is stored.

    Args:
        rules: as they are now.
        blocks: some consecutive hours at a time, from ``first`` on: the measurements of these and of the hours that
            they look back to, and the states that an earlier fold found after these.
        before: the states after the last evaluated hour before ``first``.
        first: the first hour that is folded.
        closed_until: hours before it are closed.
        reach: the last hour whose states may have changed although those before it did not: a new measurement is in
            its window, it has closed, or it was folded by other rules.
    """
    for history, stored in blocks:
        for hour, states in fold(rules, history, before, first, closed_until):
            yield hour, states
            if hour >= reach and states == stored.get(hour, {}):
                return
            before, first = states, hour.next


def judge(
    rule: AlertRule, history: History, hour: Hour, active: Mapping[Group, AlertState], *, closed: bool
) -> dict[Group, Verdict]:
    """What an hour says of each group that is there, was there, or has an alert. No verdict: the hour says nothing."""
    window = _back(hour, rule.window)
    measured = [history[h][rule.definition].groups for h in window if _has(history, h, rule)]
    groups: set[Group] = {group for groups in measured for group in groups} | set(active)
    if not rule.by:
        groups.add(())
    elif rule.judges_silence:
        for h in _back(window[-1].previous, KNOWN_HOURS):
            groups |= set(history[h][rule.definition].groups) if _has(history, h, rule) else set()
    whole = len(measured) == rule.window
    if rule.judges_silence and not (closed and whole):
        return {}
    verdicts = {
        group: _verdict(rule, history, hour, group, [g[group] for g in measured if group in g]) for group in groups
    }
    if not closed:
        return {group: verdict for group, verdict in verdicts.items() if verdict.breached}
    return verdicts


def _verdict(rule: AlertRule, history: History, hour: Hour, group: Group, found: list[Measurement]) -> Verdict:
    total = reduce(add, found, Measurement())
    value = value_of(total, rule, rule.window)
    if rule.against_hours and value is not None:
        value = _change(rule, history, hour, group, value)
    few = rule.measure not in ADDITIVE or rule.against_hours
    if value is None or (few and total.events < rule.at_least):
        return Verdict(breached=False, calm=True, value=value, minute=total.peak_minute)
    if rule.above is not None:
        limit = rule.above if rule.resolve_below is None else rule.resolve_below
        breached, calm = value > rule.above, value < limit if rule.resolve_below is not None else value <= limit
    else:
        below = 1.0 if rule.below is None else rule.below
        breached = value < below
        calm = value > rule.resolve_above if rule.resolve_above is not None else not breached
    return Verdict(breached, calm and not breached, value, total.peak_minute)


def _change(rule: AlertRule, history: History, hour: Hour, group: Group, value: float) -> float | None:
    """How many times the mean of the hours before; None where there was nothing to compare with."""
    earlier = _back(_back(hour, rule.window)[-1].previous, rule.against_hours or 0)
    known = [history[h][rule.definition].groups for h in earlier if _has(history, h, rule)]
    base = reduce(add, [groups[group] for groups in known if group in groups], Measurement())
    mean = value_of(base, rule, len(known)) if known else None
    if mean is not None and rule.measure in ADDITIVE - {"rate_per_minute"}:
        mean = mean * rule.window / len(known)
    return value / mean if mean else None


def _step(
    rule: AlertRule, before: Mapping[Group, AlertState], verdicts: Mapping[Group, Verdict], hour: Hour
) -> dict[Group, AlertState]:
    after = {group: state for group, state in before.items() if group not in verdicts}
    for group, verdict in verdicts.items():
        state = _next(rule, group, before.get(group), verdict, hour)
        if state is not None:
            after[group] = state
    return after


def _next(rule: AlertRule, group: Group, state: AlertState | None, verdict: Verdict, hour: Hour) -> AlertState | None:
    if state is not None and state.status == "firing":
        calm = state.calm_hours + 1 if verdict.calm else 0
        held = state.held_hours + 1 if verdict.breached else state.held_hours
        if calm >= rule.resolve_for_hours:
            return None
        return replace(state, calm_hours=calm, held_hours=held, value=verdict.value, minute=verdict.minute)
    if not verdict.breached:
        return None
    held = state.held_hours + 1 if state else 1
    since = state.since if state else hour
    status: Literal["pending", "firing"] = "firing" if held >= rule.for_hours else "pending"
    return AlertState(rule.name, rule.definition, group, status, since, held, 0, verdict.value, verdict.minute)


def _back(hour: Hour, hours: int) -> list[Hour]:
    """``hour`` and those before it, so many in all, latest first."""
    found = [hour]
    while len(found) < hours:
        found.append(found[-1].previous)
    return found


def _has(history: History, hour: Hour, rule: AlertRule) -> bool:
    return hour in history and rule.definition in history[hour]
