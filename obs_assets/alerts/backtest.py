"""Rules over past hours: which messages they would have sent, and when.

This module imports nothing that sends. Rules are measured, folded and decided by the same functions as
in a run; hours are taken in order, each once, as closed hours.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta

from obs_assets.alerts.evaluate import Evaluation, evaluate
from obs_assets.alerts.life import AlertState, States, fold
from obs_assets.alerts.notices import Notice, bundle, decide, message
from obs_assets.alerts.rules import AlertRule, with_rule
from obs_assets.events import Frame, count_by
from obs_assets.hours import Hour

LISTED_DISPATCHES = 20
"""Dispatches of a rule that a report lists."""


@dataclass(frozen=True)
class SimulatedDispatch:
    """A dispatch that would have been sent.

    Attributes:
        hour: the hour that it is about.
        status: ``firing`` or ``resolved``.
        summary: a line of text.
        alerts: number of alerts in it.
    """

    hour: Hour
    status: str
    summary: str
    alerts: int


@dataclass(frozen=True)
class RuleOutcome:
    """The effect of a rule over the hours of a backtest.

    Attributes:
        rule: name of the rule.
        dispatches: messages, after cooldown and grouping.
        suppressed: firing hours of alerts without a message, because of a cooldown.
        firing_hours: hours in which at least one alert fired.
        longest_hours: the longest time that an alert fired without a break, in hours.
        forwarded: events that the rule would have forwarded.
        batches: requests that these events would have needed.
    """

    rule: str
    dispatches: tuple[SimulatedDispatch, ...] = ()
    suppressed: int = 0
    firing_hours: tuple[Hour, ...] = ()
    longest_hours: int = 0
    forwarded: int = 0
    batches: int = 0

    @property
    def requests(self) -> int:
        """Requests to the webhook, for messages and forwarded events."""
        return len(self.dispatches) + self.batches


@dataclass
class Simulation:
    """Tries rules on hours, in order. Keeps evaluations, which are small, and no frame.

    Attributes:
        rules: the rules to try.
        batch_size: events in a request of a rule that forwards.
        each: give each alert its own message, as for PagerDuty.
    """

    rules: Sequence[AlertRule]
    batch_size: int = 10
    each: bool = False
    _history: dict[Hour, Evaluation] = field(default_factory=dict, init=False)
    _states: States = field(default_factory=dict, init=False)
    _states_after: dict[Hour, States] = field(default_factory=dict, init=False)
    _notices: list[Notice] = field(default_factory=list, init=False)
    _suppressed: Counter[str] = field(default_factory=Counter, init=False)
    _forwarded: Counter[str] = field(default_factory=Counter, init=False)
    _batches: Counter[str] = field(default_factory=Counter, init=False)

    def take(self, hour: Hour, frame: Frame) -> None:
        """Try the rules on the next hour."""
        for rule, events in count_by(with_rule(frame, self.rules), "rule").items():
            self._forwarded[rule] += events
            # Rounded up: the last batch of an hour is sent although it is not full.
            self._batches[rule] += -(-events // self.batch_size)
        self._history[hour] = evaluate(frame, self.rules)
        ((_, self._states),) = fold(
            self.rules,
            self._history,
            self._states,
            hour,
            hour.next,
        )
        self._states_after[hour] = self._states
        decision = decide(
            self.rules,
            [(hour, self._states)],
            self._notices,
            lambda _: False,
        )
        self._notices += decision.notices
        announced = Counter(
            notice.rule for notice in decision.notices if notice.kind == "firing"
        )
        firing = Counter(state.rule for state in _firing(self._states))
        for rule, number in firing.items():
            self._suppressed[rule] += number - announced[rule]

    def outcomes(self, name: str) -> list[RuleOutcome]:
        """The effect of each rule; ``name`` is the destination's, for the messages."""
        dispatches: dict[str, list[SimulatedDispatch]] = {}
        for notices in bundle(self.rules, self._notices, each=self.each):
            made = message(self.rules, notices, name)
            dispatch = SimulatedDispatch(
                made.hour,
                made.status,
                made.summary,
                len(notices),
            )
            dispatches.setdefault(made.rule, []).append(dispatch)
        found = []
        for rule in self.rules:
            found.append(self._outcome(rule.name, dispatches.get(rule.name, [])))
        return found

    def _outcome(self, rule: str, dispatches: list[SimulatedDispatch]) -> RuleOutcome:
        spans = list(self._firing_spans(rule))
        return RuleOutcome(
            rule=rule,
            dispatches=tuple(dispatches),
            suppressed=self._suppressed[rule],
            firing_hours=tuple(sorted({hour for hour, _ in spans})),
            longest_hours=max((hours for _, hours in spans), default=0),
            forwarded=self._forwarded[rule],
            batches=self._batches[rule],
        )

    def _firing_spans(self, rule: str) -> Iterator[tuple[Hour, int]]:
        """Each hour in which an alert of the rule fired, and for how many hours it had fired then."""
        for hour, states in self._states_after.items():
            for state in _firing(states):
                if state.rule == rule:
                    yield hour, (hour.end - state.since.start) // timedelta(hours=1)


def _firing(states: States) -> Iterator[AlertState]:
    return (state for state in states.values() if state.status == "firing")


def backtest(
    hours: Iterable[Hour],
    open_frame: Callable[[Hour], AbstractContextManager[Frame]],
    *simulations: Simulation,
) -> int:
    """Run simulations over hours; returns the number of hours.

    Args:
        hours: the hours that were built, in order.
        open_frame: opens the frame of an hour that the destination takes.
        simulations: each gets every hour.
    """
    taken = 0
    for hour in hours:
        with open_frame(hour) as frame:
            for simulation in simulations:
                simulation.take(hour, frame)
        taken += 1
    return taken


def report(
    title: str,
    hours: Sequence[Hour],
    missing: int,
    candidate: Sequence[RuleOutcome],
    present: Sequence[RuleOutcome],
) -> str:
    """The outcomes as Markdown.

    Args:
        title: the range of hours.
        hours: the hours that were simulated.
        missing: number of hours of the range that were not built.
        candidate: outcomes of the rules that are tried.
        present: outcomes of the rules that are configured now.
    """
    now = {outcome.rule: outcome for outcome in present}
    lines = [
        f"# Backtest of {title}",
        "",
        _scope(hours, missing),
        "",
        "| rule | dispatches | now | suppressed | hours firing | longest | events forwarded | now |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for outcome in candidate:
        lines.append(_row(outcome, now.pop(outcome.rule, None)))
    # The rules that remain are configured now and missing in the candidate.
    for rule, before in now.items():
        lines.append(_row(RuleOutcome(f"{rule} (no more)"), before))
    for outcome in candidate:
        lines += _list_of_dispatches(outcome)
    return "\n".join(lines) + "\n"


def _scope(hours: Sequence[Hour], missing: int) -> str:
    if not hours:
        return "no hour of the range was built"
    left_out = ""
    if missing:
        left_out = f"; {missing:,} were not built and are left out"
    return f"{len(hours):,} hours, {hours[0]} to {hours[-1]}{left_out}"


def _row(outcome: RuleOutcome, before: RuleOutcome | None) -> str:
    dispatches_now = forwarded_now = "new"
    if before is not None:
        dispatches_now, forwarded_now = f"{before.requests:,}", f"{before.forwarded:,}"
    cells = [
        _cell(outcome.rule),
        f"{outcome.requests:,}",
        dispatches_now,
        f"{outcome.suppressed:,}",
        f"{len(outcome.firing_hours):,}",
        f"{outcome.longest_hours:,} h",
        f"{outcome.forwarded:,}",
        forwarded_now,
    ]
    return f"| {' | '.join(cells)} |"


def _list_of_dispatches(outcome: RuleOutcome) -> list[str]:
    if not outcome.dispatches:
        return []
    lines = ["", f"## {_cell(outcome.rule)}", ""]
    lines += ["| hour | | alerts | summary |", "|:--|:--|--:|:--|"]
    for dispatch in outcome.dispatches[:LISTED_DISPATCHES]:
        cells = [
            str(dispatch.hour),
            dispatch.status,
            f"{dispatch.alerts:,}",
            _cell(dispatch.summary),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    more = len(outcome.dispatches) - LISTED_DISPATCHES
    if more > 0:
        lines += ["", f"and {more:,} more"]
    return lines


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
