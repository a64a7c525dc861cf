"""The life of alerts: whatever the order in which hours are built, one state, and nothing told twice."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_assets.alerts import AlertRule
from obs_assets.alerts.evaluate import Evaluation, Group, Measured, Measurement
from obs_assets.alerts.life import History, States, fingerprint, fold, refold
from obs_assets.alerts.notices import Notice, decide
from obs_assets.hours import Hour, parse_hour

FIRST = parse_hour("2025-12-04-00:00")
HOURS = [Hour(FIRST.start + timedelta(hours=n)) for n in range(14)]
CLOSED = HOURS[-1].next
Counts = Mapping[Group, int]


def rule(**options: Any) -> AlertRule:
    return AlertRule.model_validate({"name": "r", "by": ["worker"], "above": 2, **options})


def evaluated(one: AlertRule, counts: Counts) -> Evaluation:
    groups = {group: Measurement(events=n, weight=float(n)) for group, n in counts.items() if n}
    return {one.definition: Measured(groups)}


@dataclass
class Journal:
    """Builds hours one by one, each time folding from the built hour on; the database's part without a database."""

    rule: AlertRule
    history: dict[Hour, Evaluation] = field(default_factory=dict)
    states: dict[Hour, States] = field(default_factory=dict)
    told: list[Notice] = field(default_factory=list)
    folded: int = 0

    def blocks(self, first: Hour) -> Iterator[tuple[History, Mapping[Hour, States]]]:
        """Two hours at a time, with those before them."""
        hours = sorted(hour for hour in self.history if hour >= first)
        for start in range(0, len(hours), 2):
            some = hours[start : start + 2]
            known = {h: e for h, e in self.history.items() if h <= some[-1]}
            yield known, {h: self.states[h] for h in some if h in self.states}

    def build(self, hour: Hour, counts: Counts, *, muted: bool = False) -> list[Notice]:
        self.history[hour] = evaluated(self.rule, counts)
        before = [h for h in self.states if h < hour]
        folded = list(
            refold(
                [self.rule],
                self.blocks(hour),
                self.states[max(before)] if before else {},
                first=hour,
                closed_until=CLOSED,
                reach=Hour(hour.start + timedelta(hours=self.rule.looks_back)),
            )
        )
        self.folded += len(folded)
        self.states.update(folded)
        beyond = sorted((h, states) for h, states in self.states.items() if h > folded[-1][0])
        decision = decide([self.rule], folded, self.told, lambda _: muted, beyond)
        self.told += decision.notices
        return decision.notices


def slow_states(
    one: AlertRule, built: Mapping[Hour, Counts]
) -> dict[Hour, dict[Group, tuple[str, Hour, int, int]]]:
    """The obvious fold: every hour looks at all events of its window anew, group by group, from the very first hour."""
    found: dict[Hour, dict[Group, tuple[str, Hour, int, int]]] = {}
    every = {group for counts in built.values() for group in counts} if one.by else {()}
    last: dict[Group, tuple[str, Hour, int, int]] = {}
    for hour in sorted(built):
        window = [Hour(hour.start - timedelta(hours=n)) for n in range(one.window)]
        last = dict(last)
        for group in every:
            count = sum(built[h].get(group, 0) for h in window if h in built)
            if one.absent_hours:
                if any(h not in built for h in window):
                    continue
                day = [Hour(window[-1].start - timedelta(hours=n)) for n in range(1, 25)]
                heard = any(built[h].get(group, 0) for h in [*day, *window] if h in built)
                breached = count == 0 and (heard or group in last or not one.by)
                calm = not breached
            else:
                assert one.above is not None
                breached = count > one.above
                calm = (
                    count < one.resolve_below if one.resolve_below is not None else not breached
                )
            state = last.get(group)
            if state and state[0] == "firing":
                calm_hours = state[3] + 1 if calm else 0
                if calm_hours >= one.resolve_for_hours:
                    del last[group]
                else:
                    last[group] = ("firing", state[1], state[2] + breached, calm_hours)
            elif breached:
                held = state[2] + 1 if state else 1
                last[group] = (
                    "firing" if held >= one.for_hours else "pending",
                    state[1] if state else hour,
                    held,
                    0,
                )
            else:
                last.pop(group, None)
        found[hour] = last
    return found


def plain(states: States) -> dict[Group, tuple[str, Hour, int, int]]:
    return {s.group: (s.status, s.since, s.held_hours, s.calm_hours) for s in states.values()}


RULES = st.one_of(
    st.builds(
        lambda above, window, for_hours, resolve, cooldown, gap: rule(
            above=above,
            window_hours=window,
            for_hours=for_hours,
            resolve_for_hours=resolve,
            cooldown_hours=cooldown,
            **({"resolve_below": max(0, above - gap)} if gap else {}),
        ),
        st.integers(0, 4),
        st.integers(1, 3),
        st.integers(1, 3),
        st.integers(1, 2),
        st.integers(0, 5),
        st.integers(0, 1),
    ),
    st.builds(
        lambda absent, by, cooldown: rule(
            above=None, absent_hours=absent, by=by, cooldown_hours=cooldown
        ),
        st.integers(1, 3),
        st.sampled_from([["worker"], []]),
        st.integers(0, 5),
    ),
)
BUILDS = st.lists(
    st.tuples(st.sampled_from(HOURS), st.lists(st.integers(0, 5), min_size=2, max_size=2)),
    max_size=25,
)


@pytest.mark.slow
@settings(deadline=None)
@given(one=RULES, builds=BUILDS, data=st.data())
def test_any_order_of_builds_ends_in_one_state(
    one: AlertRule, builds: list[tuple[Hour, list[int]]], data: st.DataObject
) -> None:
    """Hours built and rebuilt in any order: the states are those of the slow fold over what the hours hold at last."""
    groups: list[Group] = [("a",), (None,)] if one.by else [()]
    journal = Journal(one)
    built: dict[Hour, Counts] = {}
    for hour, counts in builds:
        built[hour] = {group: n for group, n in zip(groups, counts, strict=False) if n}
        journal.build(hour, built[hour])
    expected = slow_states(one, built)
    assert {hour: plain(states) for hour, states in journal.states.items()} == expected
    again = Journal(one)
    for hour in data.draw(st.permutations(sorted(built))):
        again.build(hour, built[hour])
    assert again.states == journal.states


@pytest.mark.slow
@settings(deadline=None)
@given(one=RULES, builds=BUILDS)
def test_nothing_is_told_twice(one: AlertRule, builds: list[tuple[Hour, list[int]]]) -> None:
    """No alert is told twice within its cooldown, nor for one hour; an end is told once, and only after a beginning."""
    groups: list[Group] = [("a",), (None,)] if one.by else [()]
    journal = Journal(one)
    for hour, counts in builds:
        held = {group: n for group, n in zip(groups, counts, strict=False) if n}
        journal.build(hour, held)
        assert journal.build(hour, held) == []  # a rebuild of the same says nothing
        head = max(journal.states)
        for group in groups:
            key = fingerprint("r", group)
            mine = [notice for notice in journal.told if notice.fingerprint == key]
            firing = sorted(notice.hour for notice in mine if notice.kind == "firing")
            silence = timedelta(hours=max(1, one.cooldown_hours))
            assert all(
                later.start - earlier.start >= silence for earlier, later in pairwise(firing)
            )
            ends = [notice.hour for notice in mine if notice.kind == "resolved"]
            assert len(set(ends)) == len(ends)
            assert not ends or firing
            state = journal.states[head].get(key)
            if state and state.status == "firing" and one.cooldown_hours <= 1 and not ends:
                assert firing, "an alert that fires was never told"
            last = max(mine, key=lambda n: (n.hour, n.kind == "resolved"), default=None)
            if last and not (state and state.status == "firing"):
                assert last.kind == "resolved", "somebody still believes that it fires"


def test_a_life() -> None:
    """Fires after two hours, is silent in its cooldown, is told again after it, and ends once."""
    journal = Journal(rule(for_hours=2, cooldown_hours=3))
    said = [
        [(n.kind, n.hour.start.hour) for n in journal.build(HOURS[hour], {("a",): count})]
        for hour, count in enumerate([5, 5, 5, 5, 5, 1, 5, 1])
    ]
    assert said == [[], [("firing", 1)], [], [], [("firing", 4)], [("resolved", 5)], [], []]


def test_a_late_hour_before_does_not_tell_the_episode_again() -> None:
    """An earlier hour turns out to have fired too: the same episode, of which somebody knows already."""
    journal = Journal(rule(cooldown_hours=0))
    assert len(journal.build(HOURS[5], {("a",): 5})) == 1
    assert journal.build(HOURS[4], {("a",): 5}) == []
    assert journal.states[HOURS[5]][fingerprint("r", ("a",))].since == HOURS[4]


def test_an_alert_that_a_rebuild_takes_back_is_resolved() -> None:
    """Whoever was told of an alert that was none is told of its end."""
    journal = Journal(rule())
    journal.build(HOURS[1], {("a",): 5})
    assert [n.kind for n in journal.build(HOURS[1], {})] == ["resolved"]


def test_what_is_muted_is_recorded_once_and_silences_nothing() -> None:
    """A backfill records what it would have told; a live hour within the same cooldown is told."""
    journal = Journal(rule(cooldown_hours=10))
    assert [n.sent for n in journal.build(HOURS[0], {("a",): 5}, muted=True)] == [False]
    assert journal.build(HOURS[1], {("a",): 5}, muted=True) == []
    assert [n.sent for n in journal.build(HOURS[2], {("a",): 5})] == [True]


@pytest.mark.parametrize(("closed", "expected"), [(HOURS[3], {}), (HOURS[4], {()})])
def test_absence_is_judged_of_closed_hours_alone(closed: Hour, expected: set[Group]) -> None:
    """An hour that still fills is not called silent."""
    one = rule(above=None, absent_hours=2, by=[])
    history = {hour: evaluated(one, {}) for hour in HOURS[2:4]}
    *_, (_, states) = fold([one], history, {}, HOURS[2], closed)
    assert {state.group for state in states.values()} == set(expected)


def test_an_unknown_hour_is_not_an_empty_one() -> None:
    """Absence over two hours of which one was never built says nothing."""
    one = rule(above=None, absent_hours=2, by=[])
    history = {hour: evaluated(one, {}) for hour in (HOURS[1], HOURS[3])}
    assert all(states == {} for _, states in fold([one], history, {}, HOURS[1], CLOSED))


def test_change_compares_with_the_hours_before() -> None:
    """Three times the mean of the four hours before fires; without hours before nothing does."""
    journal = Journal(rule(above=3, against_hours=4, by=[]))
    counts = [10, 10, 8, 12, 30, 31]
    firing = [
        bool(journal.build(HOURS[n], {(): count}) or journal.states[HOURS[n]])
        for n, count in enumerate(counts)
    ]
    assert firing == [False, False, False, False, False, False]
    assert journal.build(HOURS[6], {(): 200})[0].value == pytest.approx(
        200 / ((8 + 12 + 30 + 31) / 4)
    )


def test_another_definition_has_no_past() -> None:
    """A rule that was changed starts anew; what was told of it is ended."""
    journal = Journal(rule())
    journal.build(HOURS[0], {("a",): 5})
    journal.rule = rule(above=100)
    assert [n.kind for n in journal.build(HOURS[1], {("a",): 5})] == ["resolved"]


def test_an_hour_built_late_is_silent_within_the_cooldown_of_a_later_one() -> None:
    """The cooldown holds backwards too: what is told of hour 5 silences an alert of hour 3 that ended in between."""
    journal = Journal(rule(cooldown_hours=4))
    journal.build(HOURS[4], {})
    assert len(journal.build(HOURS[5], {("a",): 5})) == 1
    assert journal.build(HOURS[3], {("a",): 5}) == []


def test_a_change_is_folded_only_as_far_as_it_reaches() -> None:
    """An hour that is built anew and says the same, or something that soon is past, folds few hours."""
    journal = Journal(rule())
    hours = [Hour(FIRST.start + timedelta(hours=n)) for n in range(100)]
    for hour in hours:
        journal.build(hour, {("a",): 1})
    journal.folded = 0
    journal.build(hours[5], {("a",): 1})
    assert journal.folded <= 3
    journal.folded = 0
    told = journal.build(hours[5], {("a",): 3})
    assert (journal.folded <= 4, [notice.kind for notice in told]) == (
        True,
        ["firing", "resolved"],
    )
