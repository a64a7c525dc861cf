"""The life of alerts: measurements of hours, in the order of event time, give the state of each alert.

::

             breached                 held for_hours
    (none) ───────────▶ pending ──────────────────────▶ firing
       ▲                   │                              │
       └───── not breached ┘                              │
       └──────────────────── calm for resolve_for_hours ──┘

A state depends on the stored measurements alone, not on the order in which hours were built. When an
hour is built again, that hour and the hours after it are folded again.
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

Status: TypeAlias = Literal["pending", "firing"]

History: TypeAlias = Mapping[Hour, Evaluation]
"""Hour → its evaluation. An hour that is missing here is unknown, not empty."""


@dataclass(frozen=True)
class AlertState:
    """The state of an alert after an hour. An alert that neither fires nor is pending has no state.

    Attributes:
        rule: name of the rule.
        definition: hash of the rule's condition, see `AlertRule.definition`.
        group: values of the rule's ``by`` fields.
        status: ``pending`` until the condition has held for the rule's ``for_hours``.
        since: first hour in which the condition held; rule, group and this hour identify an episode.
        held_hours: number of consecutive hours in which the condition held.
        calm_hours: number of consecutive calm hours of a firing alert, the newest included.
        value: measure of the newest judged hour, in the unit of the rule's ``measure``.
        minute: minute of that hour (0 to 59) at which its worst window begins.
    """

    rule: str
    definition: str
    group: Group
    status: Status
    since: Hour
    held_hours: int
    calm_hours: int = 0
    value: float | None = None
    minute: int | None = None


States: TypeAlias = Mapping[str, AlertState]
"""Fingerprint of an alert → its state."""


@dataclass(frozen=True)
class Judgement:
    """The result of a rule for a group in an hour.

    Attributes:
        breached: the rule's condition is true.
        calm: the condition is false, and the measure is also on the good side of the resolve threshold.
        value: the measure, or None if nothing was measured.
        minute: minute of the hour at which the window with the worst measure begins.
    """

    breached: bool
    calm: bool
    value: float | None
    minute: int | None = None


def fingerprint(rule: str, group: Group) -> str:
    """The identity of an alert: a hash of the rule's name and the group, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps([rule, *group]).encode()).hexdigest()[:32]


def fold(
    rules: Sequence[AlertRule],
    history: History,
    before: States,
    first: Hour,
    closed_until: Hour,
) -> Iterator[tuple[Hour, States]]:
    """The states after each evaluated hour from ``first`` on.

    Args:
        rules: the present rules; states of other definitions are dropped.
        history: the hours from ``first`` on, and the earlier hours that the rules look back to.
        before: the states after the last evaluated hour before ``first``.
        first: the first hour to fold.
        closed_until: hours before it are closed. An open hour can breach a condition, but its low
            counts mean nothing yet, so it never calms an alert.
    """
    known = {rule.definition: rule for rule in rules if rule.measures and rule.enabled}
    states = {key: state for key, state in before.items() if state.definition in known}
    for hour in sorted(hour for hour in history if hour >= first):
        after: dict[str, AlertState] = {}
        for definition, rule in known.items():
            active = {
                state.group: state
                for state in states.values()
                if state.definition == definition
            }
            if definition in history[hour]:
                judgements = judge_hour(rule, history, hour, active, closed=hour < closed_until)
                active = _next_states(rule, active, judgements, hour)
            for group, state in active.items():
                after[fingerprint(rule.name, group)] = state
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
    """Fold from a changed hour on, until the states equal the stored states again.

    Args:
        rules: the present rules.
        blocks: consecutive hours, some at a time, from ``first`` on: their measurements with those of
            the hours that they look back to, and the states that an earlier fold stored for them.
        before: the states after the last evaluated hour before ``first``.
        first: the first hour to fold.
        closed_until: hours before it are closed.
        reach: the last hour whose states can differ although the states before it are equal: a new
            measurement is in its window, it has closed, or it was folded with other rules.
    """
    for history, stored in blocks:
        for hour, states in fold(rules, history, before, first, closed_until):
            yield hour, states
            if hour >= reach and states == stored.get(hour, {}):
                return
            before, first = states, hour.next


def judge_hour(
    rule: AlertRule,
    history: History,
    hour: Hour,
    active: Mapping[Group, AlertState],
    *,
    closed: bool,
) -> dict[Group, Judgement]:
    """Judge each group that has events, had events, or has an alert.

    A group without a judgement keeps its state: the hour says nothing about it.
    """
    window = _hours_back_from(hour, rule.window)
    measured = [
        history[h][rule.definition].groups for h in window if _is_measured(history, h, rule)
    ]
    is_complete = len(measured) == rule.window
    # Too few events mean nothing while events can still arrive, or an hour is unknown.
    if rule.judges_silence and not (closed and is_complete):
        return {}
    groups = set(active).union(*measured)
    if not rule.by:
        # The only group of such a rule is judged even if no event matched.
        groups.add(())
    elif rule.judges_silence:
        groups |= _groups_of_the_day_before(rule, history, window[-1])
    judgements: dict[Group, Judgement] = {}
    for group in groups:
        found = [by_group[group] for by_group in measured if group in by_group]
        judgements[group] = _judge_group(rule, history, hour, group, found)
    if not closed:
        # More events can only confirm a breach; they can end a calm.
        return {group: found for group, found in judgements.items() if found.breached}
    return judgements


def _groups_of_the_day_before(
    rule: AlertRule,
    history: History,
    oldest: Hour,
) -> set[Group]:
    """Groups with events in the `KNOWN_HOURS` hours before ``oldest``: their silence can fire."""
    groups: set[Group] = set()
    for hour in _hours_back_from(oldest.previous, KNOWN_HOURS):
        if _is_measured(history, hour, rule):
            groups |= set(history[hour][rule.definition].groups)
    return groups


def _judge_group(
    rule: AlertRule,
    history: History,
    hour: Hour,
    group: Group,
    found: list[Measurement],
) -> Judgement:
    """Compare the sum of a group's measurements in the window with the rule's thresholds."""
    total = reduce(add, found, Measurement())
    value = value_of(total, rule, rule.window)
    if rule.against_hours and value is not None:
        value = _times_the_mean_before(rule, history, hour, group, value)
    # A ratio or a comparison of a few events says little.
    needs_events = rule.measure not in ADDITIVE or rule.against_hours
    if value is None or (needs_events and total.events < rule.at_least):
        return Judgement(
            breached=False,
            calm=True,
            value=value,
            minute=total.peak_minute,
        )
    breached = _is_breached(rule, value)
    calm = not breached and _is_resolved(rule, value)
    return Judgement(breached, calm, value, total.peak_minute)


def _is_breached(rule: AlertRule, value: float) -> bool:
    if rule.above is not None:
        return value > rule.above
    # An absence rule has no `below`: it fires when no event matched.
    limit = rule.below
    if limit is None:
        limit = 1.0
    return value < limit


def _is_resolved(rule: AlertRule, value: float) -> bool:
    if rule.resolve_below is not None:
        return value < rule.resolve_below
    if rule.resolve_above is not None:
        return value > rule.resolve_above
    return True


def _times_the_mean_before(
    rule: AlertRule, history: History, hour: Hour, group: Group, value: float
) -> float | None:
    """The value divided by the mean of the ``against_hours`` before; None without such hours."""
    oldest = _hours_back_from(hour, rule.window)[-1]
    earlier = _hours_back_from(oldest.previous, rule.against_hours or 0)
    known = [
        history[h][rule.definition].groups for h in earlier if _is_measured(history, h, rule)
    ]
    if not known:
        return None
    base = reduce(
        add,
        [groups[group] for groups in known if group in groups],
        Measurement(),
    )
    mean = value_of(base, rule, len(known))
    # A sum of all earlier hours becomes the sum of a window; a rate does not depend on the length.
    if mean is not None and rule.measure in ADDITIVE - {"rate_per_minute"}:
        mean = mean * rule.window / len(known)
    if not mean:
        return None
    return value / mean


def _next_states(
    rule: AlertRule,
    before: Mapping[Group, AlertState],
    judgements: Mapping[Group, Judgement],
    hour: Hour,
) -> dict[Group, AlertState]:
    # A group without a judgement keeps its state.
    after = {group: state for group, state in before.items() if group not in judgements}
    for group, judgement in judgements.items():
        state = _next_state(rule, group, before.get(group), judgement, hour)
        if state is not None:
            after[group] = state
    return after


def _next_state(
    rule: AlertRule,
    group: Group,
    state: AlertState | None,
    judgement: Judgement,
    hour: Hour,
) -> AlertState | None:
    """The state of an alert after an hour; None when it resolved or never began."""
    if state is not None and state.status == "firing":
        return _next_firing(rule, state, judgement)
    if not judgement.breached:
        return None
    held_hours, since = 1, hour
    if state is not None:
        held_hours, since = state.held_hours + 1, state.since
    status: Status = "firing" if held_hours >= rule.for_hours else "pending"
    return AlertState(
        rule=rule.name,
        definition=rule.definition,
        group=group,
        status=status,
        since=since,
        held_hours=held_hours,
        value=judgement.value,
        minute=judgement.minute,
    )


def _next_firing(
    rule: AlertRule,
    state: AlertState,
    judgement: Judgement,
) -> AlertState | None:
    # Between the threshold and the resolve threshold, an hour is neither breached nor calm.
    calm_hours = 0
    if judgement.calm:
        calm_hours = state.calm_hours + 1
    if calm_hours >= rule.resolve_for_hours:
        return None
    return replace(
        state,
        calm_hours=calm_hours,
        held_hours=state.held_hours + judgement.breached,
        value=judgement.value,
        minute=judgement.minute,
    )


def _hours_back_from(hour: Hour, number: int) -> list[Hour]:
    """``hour`` and the hours before it, latest first; ``number`` hours in all, at least 1."""
    found = [hour]
    while len(found) < number:
        found.append(found[-1].previous)
    return found


def _is_measured(history: History, hour: Hour, rule: AlertRule) -> bool:
    return hour in history and rule.definition in history[hour]
