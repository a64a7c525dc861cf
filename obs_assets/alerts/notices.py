"""Which messages to send now: states compared with the notices that were sent before.

A notice is decided once and never taken back.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from obs_assets.alerts.evaluate import Group
from obs_assets.alerts.life import AlertState, States, fingerprint
from obs_assets.alerts.rules import AlertRule
from obs_assets.alerts.templates import render
from obs_assets.hours import Hour

Kind = Literal["firing", "resolved"]


@dataclass(frozen=True)
class Notice:
    """An alert fires, or has resolved, in an hour.

    Attributes:
        fingerprint: identity of the alert.
        rule: name of the rule.
        group: values of the rule's ``by`` fields.
        kind: ``firing`` or ``resolved``.
        hour: the hour that the notice is about.
        since: first hour of the episode.
        sent: whether a message is sent. Otherwise the notice is only recorded: the hour is old, or the
            webhook has no address.
        value: measure of the hour, in the unit of the rule's ``measure``.
        minute: minute of the hour (0 to 59) at which the worst window begins.
    """

    fingerprint: str
    rule: str
    group: Group
    kind: Kind
    hour: Hour
    since: Hour
    sent: bool
    value: float | None = None
    minute: int | None = None


@dataclass(frozen=True)
class Decision:
    """The notices that a fold causes.

    Attributes:
        notices: new notices, firing alerts first.
        suppressed: number of firing hours without a notice, because of a cooldown.
    """

    notices: list[Notice] = field(default_factory=list)
    suppressed: int = 0


def decide(
    rules: Sequence[AlertRule],
    folded: Sequence[tuple[Hour, States]],
    earlier: Iterable[Notice],
    is_muted: Callable[[Hour], bool],
    beyond: Sequence[tuple[Hour, States]] = (),
) -> Decision:
    """Decide which alerts of the folded hours get a notice.

    A firing alert gets a notice unless it had one within its cooldown, before or after, or later in the
    same episode: a rebuilt hour repeats nothing. An announced alert that no longer fires after the last
    hour is resolved.

    Args:
        rules: the present rules.
        folded: the states after each hour, in order.
        earlier: earlier notices that matter: those within the longest cooldown, and those of alerts that
            were announced and not resolved.
        is_muted: whether notices of an hour are only recorded.
        beyond: the states after later hours, in order, that were not folded again: the hours of notices,
            and the last hour of all.
    """
    named = {rule.name: rule for rule in rules}
    known: dict[str, list[Notice]] = {}
    for notice in earlier:
        known.setdefault(notice.fingerprint, []).append(notice)
    episodes = _episodes((*folded, *beyond))
    notices: list[Notice] = []
    suppressed = 0
    for hour, states in folded:
        muted = is_muted(hour)
        for key, state in _firing(states).items():
            of_alert = known.setdefault(key, [])
            if _is_announced(of_alert, hour):
                continue
            cooldown = timedelta(hours=max(named[state.rule].cooldown_hours, 1))
            if _is_covered(of_alert, hour, state, cooldown, episodes, muted=muted):
                suppressed += 1
                continue
            notice = _firing_notice(key, state, hour, sent=not muted)
            of_alert.append(notice)
            notices.append(notice)
    if folded:
        # Only the newest hour decides: an alert that fired again later is not resolved.
        last_hour, states = (*folded, *beyond)[-1]
        notices += _resolved_notices(last_hour, states, known, is_muted)
    return Decision(notices, suppressed)


def _episodes(after: Iterable[tuple[Hour, States]]) -> dict[tuple[str, Hour], Hour]:
    """(fingerprint, hour) → first hour of the episode that the alert is in."""
    episodes: dict[tuple[str, Hour], Hour] = {}
    for hour, states in after:
        for key, state in states.items():
            episodes[key, hour] = state.since
    return episodes


def _firing(states: States) -> States:
    return {key: state for key, state in states.items() if state.status == "firing"}


def _is_announced(notices: Sequence[Notice], hour: Hour) -> bool:
    return any(notice.kind == "firing" and notice.hour == hour for notice in notices)


def _is_covered(
    notices: Sequence[Notice],
    hour: Hour,
    state: AlertState,
    cooldown: timedelta,
    episodes: Mapping[tuple[str, Hour], Hour],
    *,
    muted: bool,
) -> bool:
    """Whether another notice of the alert makes a notice of this hour unnecessary."""
    for notice in notices:
        # A notice that was only recorded silences no notice that can be sent.
        counts = notice.sent or muted
        if notice.kind != "firing" or not counts:
            continue
        # Before or after: an hour that is built late must not repeat a newer notice.
        if abs(notice.hour.start - hour.start) < cooldown:
            return True
        episode = episodes.get((notice.fingerprint, notice.hour))
        if notice.hour > hour and episode == state.since:
            return True
    return False


def _firing_notice(
    key: str,
    state: AlertState,
    hour: Hour,
    *,
    sent: bool,
) -> Notice:
    return Notice(
        fingerprint=key,
        rule=state.rule,
        group=state.group,
        kind="firing",
        hour=hour,
        since=state.since,
        sent=sent,
        value=state.value,
        minute=state.minute,
    )


def _resolved_notices(
    last_hour: Hour,
    states: States,
    known: Mapping[str, Sequence[Notice]],
    is_muted: Callable[[Hour], bool],
) -> list[Notice]:
    """Notices of the alerts that were announced and no longer fire."""
    still_firing = _firing(states)
    found: list[Notice] = []
    for key, notices in known.items():
        if key not in still_firing:
            found += _resolved_notice(key, last_hour, notices, is_muted)
    return found


def _resolved_notice(
    key: str,
    last_hour: Hour,
    notices: Sequence[Notice],
    is_muted: Callable[[Hour], bool],
) -> list[Notice]:
    """The notice that ends an alert, if one is due.

    A message is sent only if a message said that the alert fires; otherwise the end is recorded.
    """
    sent = [notice for notice in notices if notice.sent]
    for candidates, may_send in ((sent, True), (notices, False)):
        last = max(candidates, key=_order, default=None)
        if last is None or last.kind == "resolved":
            continue
        hour = max(last_hour, last.hour)
        if any(notice.kind == "resolved" and notice.hour == hour for notice in notices):
            return []
        return [
            Notice(
                fingerprint=key,
                rule=last.rule,
                group=last.group,
                kind="resolved",
                hour=hour,
                since=last.since,
                sent=may_send and not is_muted(hour),
            )
        ]
    return []


def _order(notice: Notice) -> tuple[Hour, bool]:
    return notice.hour, notice.kind == "resolved"


@dataclass(frozen=True)
class Line:
    """A group in a message.

    Attributes:
        group: field → value.
        fingerprint: identity of the group's alert.
        value: measure of the group.
        since: first hour of the episode, as Dagster's key.
    """

    group: Mapping[str, str | None]
    fingerprint: str
    value: float | None = None
    since: str = ""


@dataclass(frozen=True)
class Message:
    """The content of a dispatch, independent of its receiver. All text is redacted, none is escaped.

    Attributes:
        rule: name of the rule.
        status: ``firing`` or ``resolved``.
        severity: severity of the rule.
        destination: name of the webhook destination.
        hour: the hour that the message is about.
        since: first hour of the oldest episode in the message.
        summary: a line of text.
        labels: labels of the rule.
        measure: measure of the rule.
        threshold: the rule's condition in words.
        lines: the groups, worst first.
        more: number of groups that are not in ``lines``.
        key: equal for all messages of the same alert, for receivers that keep incidents.
    """

    rule: str
    status: Kind
    severity: str
    destination: str
    hour: Hour
    since: Hour
    summary: str
    labels: Mapping[str, str]
    measure: str
    threshold: str
    lines: tuple[Line, ...]
    more: int
    key: str

    @property
    def title(self) -> str:
        """A headline: rule and status."""
        ending = {"firing": "is firing", "resolved": "has resolved"}[self.status]
        return f"{self.rule} {ending}"


MAX_LINES = 100
"""Largest number of groups in a message."""


def bundle(
    rules: Sequence[AlertRule], notices: Sequence[Notice], *, each: bool
) -> list[list[Notice]]:
    """Group notices into messages: those of the same rule, hour and kind together, in the order of hours.

    Args:
        rules: the present rules; ``grouping: group`` gives each notice of a rule its own message.
        notices: the notices.
        each: give each notice its own message, whatever the rules say.
    """
    named = {rule.name: rule for rule in rules}
    bundles: dict[tuple[Any, ...], list[Notice]] = {}

    def in_order(notice: Notice) -> tuple[Any, ...]:
        return *_order(notice), notice.rule, notice.fingerprint

    for notice in sorted(notices, key=in_order):
        rule = named.get(notice.rule)
        alone = each or (rule is not None and rule.grouping == "group")
        own = notice.fingerprint if alone else ""
        key = (notice.hour, notice.kind, notice.rule, notice.sent, own)
        bundles.setdefault(key, []).append(notice)
    return list(bundles.values())


def message(
    rules: Sequence[AlertRule],
    notices: Sequence[Notice],
    destination: str,
) -> Message:
    """The message of a bundle of notices."""
    first = notices[0]
    named = {rule.name: rule for rule in rules}
    # A rule that was removed still resolves the alerts that it announced.
    rule = named.get(first.rule) or AlertRule(name=first.rule, above=0)
    ordered = sorted(notices, key=lambda notice: _worst_first(rule, notice))
    alone = len(notices) == 1 and (bool(first.group) or rule.grouping == "group")
    return Message(
        rule=first.rule,
        status=first.kind,
        severity=rule.severity,
        destination=destination,
        hour=first.hour,
        since=min(notice.since for notice in notices),
        summary=_summary(rule, ordered),
        labels=dict(rule.labels),
        measure=rule.measure,
        threshold=threshold(rule),
        lines=tuple(_line(rule, notice) for notice in ordered[:MAX_LINES]),
        more=max(0, len(ordered) - MAX_LINES),
        key=first.fingerprint if alone else fingerprint(first.rule, ()),
    )


def _worst_first(rule: AlertRule, notice: Notice) -> tuple[float, str]:
    value = notice.value or 0
    # The worst value is the smallest for a rule on too few events, else the largest.
    if rule.judges_silence:
        return value, notice.fingerprint
    return -value, notice.fingerprint


def _line(rule: AlertRule, notice: Notice) -> Line:
    group = dict(zip(rule.by, notice.group, strict=False))
    return Line(group, notice.fingerprint, notice.value, notice.since.key)


def threshold(rule: AlertRule) -> str:
    """The condition in words, for example ``above 3 times the 24 h before in 1 h``."""
    if rule.absent_hours:
        return f"none for {rule.absent_hours} h"
    limit = f"below {rule.below:g}" if rule.above is None else f"above {rule.above:g}"
    times = ""
    if rule.against_hours:
        times = f" times the {rule.against_hours} h before"
    window = f" in {rule.window_hours} h"
    if rule.window_minutes:
        window = f" in {rule.window_minutes} min"
    return limit + times + window


def _summary(rule: AlertRule, notices: Sequence[Notice]) -> str:
    """The rule's own summary, else a sentence with measure, threshold and hour."""
    first = notices[0]
    if rule.summary:
        written = render(rule.summary, _template_values(rule, notices))
        # A template that fails or is empty must not stop the alert.
        if written:
            return written
    number = len(notices)
    if first.kind == "resolved":
        return (
            f"{rule.name} has resolved in {first.hour.key}, {number} of its alerts, "
            f"since {first.since.key}"
        )
    groups = ""
    if number > 1:
        groups = f" for {number} groups"
    measured = f"{_measured(rule, first)} ({threshold(rule)})"
    return f"{rule.name}: {measured}{groups} in {first.hour.key}"


def _measured(rule: AlertRule, notice: Notice) -> str:
    if rule.absent_hours:
        return "nothing"
    if notice.value is None:
        return rule.measure
    return f"{rule.measure} {notice.value:g}"


def _template_values(rule: AlertRule, notices: Sequence[Notice]) -> dict[str, Any]:
    first = notices[0]
    return {
        "rule": rule.name,
        "severity": rule.severity,
        "group": dict(zip(rule.by, first.group, strict=False)),
        "groups": len(notices),
        "value": first.value,
        "measure": rule.measure,
        "threshold": threshold(rule),
        "hour": first.hour.key,
        "since": first.since.key,
        "labels": dict(rule.labels),
        "status": first.kind,
    }
