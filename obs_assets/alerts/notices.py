"""What to tell now: states, compared with what was told before. Decides once, and never takes anything back."""

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
    """That one alert fires, or has resolved, in one hour.

    Attributes:
        fingerprint: of the alert.
        rule: its name.
        group: values of the rule's ``by``.
        hour: that it is about.
        since: the first hour of the episode.
        sent: whether somebody is told; else it is only recorded, because the hour is old or nobody is there.
        value: what was measured.
        minute: where in the hour the worst window begins.
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
    """Notices of a fold, and how many firing hours were silent, by why."""

    notices: list[Notice] = field(default_factory=list)
    suppressed: int = 0


def decide(
    rules: Sequence[AlertRule],
    folded: Sequence[tuple[Hour, States]],
    told: Iterable[Notice],
    is_muted: Callable[[Hour], bool],
    beyond: Sequence[tuple[Hour, States]] = (),
) -> Decision:
    """Which of the folded hours' alerts are told.

    A firing alert is told unless it was told within its cooldown, before or after, or later in the same episode: a
    rebuilt hour does not repeat what is known. An alert that was told and no longer fires after the last hour is
    resolved.

    Args:
        rules: as they are now.
        folded: states after each hour, in order.
        told: earlier notices that may matter: those not older than the longest cooldown, and those of alerts that were
            told and not resolved.
        is_muted: whether notices of an hour are only recorded.
        beyond: states after later hours, in order, which the fold had no need to reach: those that notices are about,
            and the last of all.
    """
    named = {rule.name: rule for rule in rules}
    earlier: dict[str, list[Notice]] = {}
    for notice in told:
        earlier.setdefault(notice.fingerprint, []).append(notice)
    episodes = {(key, hour): state.since for hour, states in (*folded, *beyond) for key, state in states.items()}
    notices: list[Notice] = []
    suppressed = 0
    for hour, states in folded:
        for key, state in states.items():
            if state.status != "firing":
                continue
            known = earlier.setdefault(key, [])
            muted = is_muted(hour)
            if any(notice.kind == "firing" and notice.hour == hour for notice in known):
                continue
            if _is_covered(known, hour, state, named[state.rule].cooldown_hours, episodes, muted=muted):
                suppressed += 1
                continue
            notice = _notice(key, state, hour, sent=not muted)
            known.append(notice)
            notices.append(notice)
    if folded:
        head, states = (*folded, *beyond)[-1]
        notices += _resolved(head, states, earlier, is_muted)
    return Decision(notices, suppressed)


def _is_covered(
    known: Sequence[Notice],
    hour: Hour,
    state: AlertState,
    cooldown_hours: int,
    episodes: Mapping[tuple[str, Hour], Hour],
    *,
    muted: bool,
) -> bool:
    silence = timedelta(hours=max(cooldown_hours, 1))
    for notice in known:
        if notice.kind != "firing" or not (notice.sent or muted):
            continue  # what was only recorded silences nothing that can be told
        if abs(notice.hour.start - hour.start) < silence:
            return True
        if notice.hour > hour and episodes.get((notice.fingerprint, notice.hour)) == state.since:
            return True
    return False


def _notice(key: str, state: AlertState, hour: Hour, *, sent: bool) -> Notice:
    return Notice(key, state.rule, state.group, "firing", hour, state.since, sent, state.value, state.minute)


def _resolved(
    head: Hour, states: States, earlier: Mapping[str, Sequence[Notice]], is_muted: Callable[[Hour], bool]
) -> list[Notice]:
    """Notices of alerts that somebody believes to fire. Who was not told of an alert is not told of its end."""
    found: list[Notice] = []
    for key, known in earlier.items():
        state = states.get(key)
        if state is not None and state.status == "firing":
            continue
        sent = [notice for notice in known if notice.sent]
        for some, may_send in ((sent, True), (known, False)):
            last = max(some, key=_order, default=None)
            if last is None or last.kind == "resolved":
                continue
            hour = max(head, last.hour)
            tells = may_send and not is_muted(hour)
            if any(notice.kind == "resolved" and notice.hour == hour for notice in known):
                break
            found.append(Notice(key, last.rule, last.group, "resolved", hour, last.since, tells))
            break
    return found


def _order(notice: Notice) -> tuple[Hour, bool]:
    return notice.hour, notice.kind == "resolved"


@dataclass(frozen=True)
class Line:
    """One group of a message."""

    group: Mapping[str, str | None]
    fingerprint: str
    value: float | None = None
    since: str = ""


@dataclass(frozen=True)
class Message:
    """What one dispatch says, for whoever takes it. All text in it is redacted, none of it is escaped.

    Attributes:
        title: rule and status.
        lines: the groups, worst first.
        more: groups that are not in ``lines``.
        key: one for all messages of the same alert, for receivers that keep incidents.
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
        """A headline."""
        return f"{self.rule} {'has resolved' if self.status == 'resolved' else 'is firing'}"


LINES = 100
"""Groups in one message."""


def bundle(rules: Sequence[AlertRule], notices: Sequence[Notice], *, each: bool) -> list[list[Notice]]:
    """The notices that go into one message: of one rule, hour and kind, or each by itself. In order of hours."""
    named = {rule.name: rule for rule in rules}
    bundles: dict[tuple[Any, ...], list[Notice]] = {}
    for notice in sorted(notices, key=lambda n: (*_order(n), n.rule, n.fingerprint)):
        rule = named.get(notice.rule)
        alone = each or (rule is not None and rule.grouping == "group")
        own = notice.fingerprint if alone else ""
        bundles.setdefault((notice.hour, notice.kind, notice.rule, notice.sent, own), []).append(notice)
    return list(bundles.values())


def message(rules: Sequence[AlertRule], notices: Sequence[Notice], destination: str) -> Message:
    """One message of a bundle."""
    first = notices[0]
    rule = next((rule for rule in rules if rule.name == first.rule), None) or AlertRule(name=first.rule, above=0)
    ordered = sorted(
        notices, key=lambda n: (-(n.value or 0) if not rule.judges_silence else n.value or 0, n.fingerprint)
    )
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
        lines=tuple(
            Line(dict(zip(rule.by, n.group, strict=False)), n.fingerprint, n.value, n.since.key)
            for n in ordered[:LINES]
        ),
        more=max(0, len(ordered) - LINES),
        key=first.fingerprint if alone else fingerprint(first.rule, ()),
    )


def threshold(rule: AlertRule) -> str:
    """The condition, in words."""
    if rule.absent_hours:
        return f"none for {rule.absent_hours} h"
    limit = f"above {rule.above:g}" if rule.above is not None else f"below {rule.below:g}"
    times = f" times the {rule.against_hours} h before" if rule.against_hours else ""
    window = f" in {rule.window_minutes} min" if rule.window_minutes else f" in {rule.window_hours} h"
    return limit + times + window


def _summary(rule: AlertRule, notices: Sequence[Notice]) -> str:
    first = notices[0]
    values = {
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
    written = render(rule.summary, values) if rule.summary else None
    if written:
        return written
    if first.kind == "resolved":
        return f"{rule.name} has resolved in {first.hour.key}, {len(notices)} of its alerts, since {first.since.key}"
    value = (
        "nothing"
        if rule.absent_hours
        else f"{rule.measure} {first.value:g}"
        if first.value is not None
        else rule.measure
    )
    several = f" for {len(notices)} groups" if len(notices) > 1 else ""
    return f"{rule.name}: {value} ({threshold(rule)}){several} in {first.hour.key}"
