"""Rules over history: what they would have told, and when. From here nobody can be told: it imports nothing that sends.

The same functions as in a run measure, fold and decide; hours are taken in order, each once, as closed hours.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta

from obs_assets.alerts.evaluate import Evaluation, evaluate
from obs_assets.alerts.life import States, fold
from obs_assets.alerts.notices import Notice, bundle, decide, message
from obs_assets.alerts.rules import AlertRule, with_rule
from obs_assets.events import Frame, count_by
from obs_assets.hours import Hour

READ_FEW = 20
"""Dispatches of a rule that a report lists."""


@dataclass(frozen=True)
class Told:
    """One dispatch that would have been sent."""

    hour: Hour
    status: str
    summary: str
    alerts: int


@dataclass(frozen=True)
class RuleOutcome:
    """What one rule would have done.

    Attributes:
        dispatches: after cooldown and grouping.
        suppressed: firing hours of alerts that were silent in their cooldown.
        firing_hours: hours in which at least one alert fired.
        longest_hours: the longest that one alert fired without a break.
        forwarded: events, of a rule that forwards, which has nothing else of these.
        batches: requests that they would have made.
    """

    rule: str
    dispatches: tuple[Told, ...] = ()
    suppressed: int = 0
    firing_hours: tuple[Hour, ...] = ()
    longest_hours: int = 0
    forwarded: int = 0
    batches: int = 0


@dataclass
class Simulation:
    """Takes hours in order. Keeps evaluations, which are small, and no frame.

    Attributes:
        rules: to be tried.
        batch_size: events in a request of a rule that forwards.
        each: tell every alert by itself, as to PagerDuty.
    """

    rules: Sequence[AlertRule]
    batch_size: int = 10
    each: bool = False
    history: dict[Hour, Evaluation] = field(default_factory=dict)
    states: States = field(default_factory=dict)
    after: dict[Hour, States] = field(default_factory=dict)
    told: list[Notice] = field(default_factory=list)
    suppressed: Counter[str] = field(default_factory=Counter)
    forwarded: Counter[str] = field(default_factory=Counter)
    batches: Counter[str] = field(default_factory=Counter)

    def take(self, hour: Hour, frame: Frame) -> None:
        """Try the rules on the next hour."""
        for rule, n in count_by(with_rule(frame, self.rules), "rule").items():
            self.forwarded[rule] += n
            self.batches[rule] += -(-n // self.batch_size)
        self.history[hour] = evaluate(frame, self.rules)
        ((_, self.states),) = fold(self.rules, self.history, self.states, hour, hour.next)
        decision = decide(self.rules, [(hour, self.states)], self.told, lambda _: False)
        self.told += decision.notices
        self.after[hour] = self.states
        told_now = Counter(notice.rule for notice in decision.notices if notice.kind == "firing")
        firing = Counter(state.rule for state in self.states.values() if state.status == "firing")
        self.suppressed.update({rule: n - told_now[rule] for rule, n in firing.items()})

    def outcomes(self, name: str) -> list[RuleOutcome]:
        """What each rule did."""
        dispatches: dict[str, list[Told]] = {}
        for notices in bundle(self.rules, self.told, each=self.each):
            said = message(self.rules, notices, name)
            dispatches.setdefault(said.rule, []).append(Told(said.hour, said.status, said.summary, len(notices)))
        return [
            RuleOutcome(
                rule.name,
                tuple(dispatches.get(rule.name, ())),
                self.suppressed[rule.name],
                tuple(hour for hour in sorted(self.after) if self._fires(rule, hour)),
                self._longest(rule),
                self.forwarded[rule.name],
                self.batches[rule.name],
            )
            for rule in self.rules
        ]

    def _fires(self, rule: AlertRule, hour: Hour) -> bool:
        return any(state.rule == rule.name and state.status == "firing" for state in self.after[hour].values())

    def _longest(self, rule: AlertRule) -> int:
        spans = [
            (hour.end - state.since.start) // timedelta(hours=1)
            for hour, states in self.after.items()
            for state in states.values()
            if state.rule == rule.name and state.status == "firing"
        ]
        return max(spans, default=0)


def backtest(
    hours: Iterable[Hour], open_frame: Callable[[Hour], AbstractContextManager[Frame]], *simulations: Simulation
) -> int:
    """Run simulations over hours; returns how many there were.

    Args:
        hours: in order, those that were built.
        open_frame: the frame of an hour that the destination takes.
    """
    taken = 0
    for hour in hours:
        with open_frame(hour) as frame:
            for simulation in simulations:
                simulation.take(hour, frame)
        taken += 1
    return taken


def report(
    title: str, hours: Sequence[Hour], missing: int, candidate: Sequence[RuleOutcome], present: Sequence[RuleOutcome]
) -> str:
    """The outcome as Markdown."""
    now = {outcome.rule: outcome for outcome in present}
    lines = [
        f"# Backtest of {title}",
        "",
        f"{len(hours):,} hours, {hours[0]} to {hours[-1]}"
        + (f"; {missing:,} were not built and are left out" * bool(missing))
        if hours
        else "no hour of the range was built",
        "",
        "| rule | dispatches | now | suppressed | hours firing | longest | events forwarded | now |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for outcome in candidate:
        before = now.pop(outcome.rule, None)
        lines.append(_row(outcome, before))
    lines += [_row(RuleOutcome(f"{rule} (no more)"), before) for rule, before in now.items()]
    for outcome in candidate:
        if outcome.dispatches:
            lines += ["", f"## {_cell(outcome.rule)}", "", "| hour | | alerts | summary |", "|:--|:--|--:|:--|"]
            lines += [
                f"| {told.hour} | {told.status} | {told.alerts:,} | {_cell(told.summary)} |"
                for told in outcome.dispatches[:READ_FEW]
            ]
            more = len(outcome.dispatches) - READ_FEW
            lines += ["", f"and {more:,} more"] if more > 0 else []
    return "\n".join(lines) + "\n"


def _row(outcome: RuleOutcome, before: RuleOutcome | None) -> str:
    was = ("new", "new") if before is None else (_requests(before), f"{before.forwarded:,}")
    cells = [_requests(outcome), was[0], f"{outcome.suppressed:,}", f"{len(outcome.firing_hours):,}"]
    cells += [f"{outcome.longest_hours:,} h", f"{outcome.forwarded:,}", was[1]]
    return f"| {_cell(outcome.rule)} | {' | '.join(cells)} |"


def _requests(outcome: RuleOutcome) -> str:
    return f"{len(outcome.dispatches) + outcome.batches:,}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
