"""The rules of an hour's checks: pure functions over figures that `obs_assets.audit.review` reads.

A finding is a sentence for people, and facts: counts, names and paths, never a value of an event.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from obs_assets.destinations.base import Holding, of_other_folder
from obs_assets.hours import parse_hour
from obs_assets.receipts import Receipt

LISTED = 50
"""Fields or leftovers that the facts of a finding list, at most."""

NAMED = 3
"""Fields or leftovers that the sentence of a finding names, at most."""

UNSPECIFIC = {"null", "any"}
"""JSON types that do not contradict another type: a field that is null in some events has not changed."""

HOURS_NEEDED = 3
"""Earlier hours whose fields must be known before a field counts as new."""

VALUES_NEEDED = 7
"""Counts of earlier hours that a series needs before a number can be unusual."""

NORMAL_SPREAD = 1.4826
"""Standard deviation of normal values, in median absolute deviations."""

LEAST_SPREAD = 0.1
"""Least usual deviation, as a share of the median: very even traffic must not cause warnings."""


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        passed: whether the check found nothing wrong.
        sentence: the result, and the next step if something is wrong.
        facts: name → figure, for a closer look.
        is_grave: data is wrong: an error. Otherwise a failed check is a warning.
    """

    passed: bool
    sentence: str
    facts: Mapping[str, int | float | str] = field(default_factory=dict)
    is_grave: bool = False


def receipt_adds_up(receipt: Receipt) -> Finding:
    """Every event of the input is kept, or set aside for a named reason."""
    set_aside = sum(receipt.other.values())
    missing = receipt.unaccounted
    facts = {
        "taken": receipt.taken,
        "kept": receipt.kept,
        "set aside": set_aside,
        "unaccounted": missing,
    }
    parts = f"{receipt.kept:,} kept + {set_aside:,} set aside"
    if not missing:
        return Finding(True, f"{receipt.taken:,} taken = {parts}.", facts, is_grave=True)
    sentence = (
        f"{receipt.taken:,} taken ≠ {parts}: {missing:,} unaccounted for; "
        "no later stage or destination is built."
    )
    return Finding(False, sentence, facts, is_grave=True)


def dead_letter_share(
    dead: int,
    total: int,
    limit: float,
    where: str,
    command: str = "obs dead-letters list",
) -> Finding:
    """At most a small share of the records are dead letters.

    Args:
        dead: number of dead letters.
        total: number of dead letters and events.
        limit: the largest allowed share, 0 to 1.
        where: the records, for the sentence: ``10 of 3,771 <where> (0.27%) could not be parsed``.
        command: the command that lists them.
    """
    share = dead / total if total else 0.0
    facts = {
        "dead letters": dead,
        "of": total,
        "share": share,
        "allowed": limit,
    }
    sentence = f"{dead:,} of {total:,} {where} ({share:.2%}) could not be parsed"
    if share > limit:
        sentence += f", more than the allowed {limit:.2%}: see `{command}`"
    return Finding(share <= limit, f"{sentence}.", facts)


def all_redacted(failed: int, taken: int) -> Finding:
    """The redactor could handle every event; a single missing event is an error.

    Args:
        failed: number of events that the redactor could not handle; they reach no destination.
        taken: number of events in the redactor's input.
    """
    facts = {"not redacted": failed, "of": taken}
    if not failed:
        return Finding(True, f"All {taken:,} events could be redacted.", facts)
    sentence = (
        f"{failed:,} of {taken:,} events could not be redacted and reach no destination: "
        "see `obs dead-letters show --reason redactor_failed`."
    )
    return Finding(False, sentence, facts, is_grave=True)


def nothing_left(
    events: int,
    left: Mapping[str, int],
    unreadable: int,
    hour: str,
) -> Finding:
    """Independent rules find no personal data that redaction missed.

    Args:
        events: number of scanned events.
        left: type and path of a leftover, for example ``email at user.name`` → number.
        unreadable: number of events that could not be scanned.
        hour: key of the hour, for the command that scans all its events.
    """
    facts: dict[str, int | str] = {
        "looked at": events,
        "left": sum(left.values()),
        "not looked into": unreadable,
    }
    if not left and not unreadable:
        sentence = f"Independent rules find no personal data in {events:,} redacted events."
        return Finding(True, sentence, facts)
    ranked = sorted(left.items(), key=_most_first)
    lines = [f"- {number:,} `{leftover}`" for leftover, number in ranked[:LISTED]]
    facts["leftovers"] = "\n".join(lines)
    named = "; ".join(f"{number:,} {leftover}" for leftover, number in ranked[:NAMED])
    found = f"Independent rules find personal data in {events:,} redacted events: {named}."
    if not named:
        # An event that nothing can search is not known to be free of personal data.
        found = f"{unreadable:,} of {events:,} redacted events cannot be searched."
    sentence = f"{found} `obs scan {hour}` searches every event of the hour."
    return Finding(False, sentence, facts, is_grave=True)


def _most_first(counted: tuple[str, int]) -> tuple[int, str]:
    name, number = counted
    return -number, name


def volume(
    rows: int,
    before: Sequence[int],
    same_hour: Sequence[int],
    deviations: float,
) -> Finding:
    """The hour has about the usual number of events.

    The number is unusual if it is far from the median of the hours before and from the median of
    the same hour on the days before: then neither the time of day nor a busy day explains it. A
    series with fewer than `VALUES_NEEDED` counts is not compared.

    The usual deviation is 1.4826 × the median absolute deviation, which is the standard deviation of
    normal values. It is at least the square root of the median, the deviation of random counts, and
    at least `LEAST_SPREAD` of the median.

    Args:
        rows: number of events of the hour.
        before: numbers of events of the hours before.
        same_hour: numbers of events of the same hour on the days before.
        deviations: largest distance from the median, in usual deviations.
    """
    series = {
        "the hours before": before,
        "the same hour of the days before": same_hour,
    }
    facts: dict[str, int | float | str] = {"events": rows}
    medians: dict[str, float] = {}
    distances: list[float] = []
    for name, counts in series.items():
        if len(counts) < VALUES_NEEDED:
            continue
        medians[name] = statistics.median(counts)
        distance = _deviations_from(medians[name], counts, rows)
        distances.append(abs(distance))
        facts[f"median of {name}"] = medians[name]
        facts[f"deviations from {name}"] = round(distance, 1)
    if not medians:
        sentence = f"{rows:,} events; too few earlier hours are known for a comparison."
        return Finding(True, sentence, facts)
    usual = " and ".join(f"{median:,.0f} in {name}" for name, median in medians.items())
    # Either series can explain the number: the time of day, or a busy day.
    if min(distances) <= deviations:
        return Finding(True, f"{rows:,} events, as usual: the median is {usual}.", facts)
    more = "more" if rows > next(iter(medians.values())) else "fewer"
    sentence = f"{rows:,} events, far {more} than usual: the median is {usual}."
    return Finding(False, sentence, facts)


def _deviations_from(
    median: float,
    counts: Sequence[int],
    rows: int,
) -> float:
    """Distance of a number of events from a median, in usual deviations of the counts."""
    distances = [abs(count - median) for count in counts]
    spread = NORMAL_SPREAD * statistics.median(distances)
    usual_deviation: float = max(
        spread,
        median**0.5,
        median * LEAST_SPREAD,
        1.0,  # a median of 0 must not divide by 0
    )
    return (rows - median) / usual_deviation


def schema_drift(now: Mapping[str, str], earlier: Sequence[Mapping[str, str]]) -> Finding:
    """No field is new, and no field has another JSON type than before.

    A field that is missing now is no finding: the events that have it can be rare.

    Args:
        now: path → types of the hour, see `obs_assets.hourly.profile.fields_of`.
        earlier: path → types, for each of the hours before.
    """
    facts: dict[str, int | float | str] = {
        "fields": len(now),
        "earlier hours": len(earlier),
    }
    if len(earlier) < HOURS_NEEDED:
        sentence = f"{len(now):,} fields; too few earlier hours are known for a comparison."
        return Finding(True, sentence, facts)
    known: dict[str, set[str]] = {}
    for fields in earlier:
        for path, types in fields.items():
            known.setdefault(path, set()).update(types.split("|"))
    new = {path: types for path, types in now.items() if path not in known}
    changed = _changed_types(now, known)
    if not new and not changed:
        sentence = f"All {len(now):,} fields are known from the {len(earlier)} hours before."
        return Finding(True, sentence, facts)
    parts = []
    if new:
        facts["new fields"] = _listed(new)
        parts.append(f"{len(new):,} {_are('field', len(new))} new")
    if changed:
        facts["changed fields"] = _listed(changed)
        are = _are("field", len(changed))
        parts.append(f"{len(changed):,} {are} of another type than before")
    paths = [*new, *changed]
    end = " …" if len(paths) > NAMED else "."
    return Finding(False, f"{' and '.join(parts)}: {', '.join(paths[:NAMED])}{end}", facts)


def _changed_types(now: Mapping[str, str], known: Mapping[str, set[str]]) -> dict[str, str]:
    """Path → its types before and now, ``string → number``, for fields with a type that is new."""
    changed = {}
    for path, types in now.items():
        before = known.get(path, set()) - UNSPECIFIC
        added = set(types.split("|")) - before - UNSPECIFIC
        if before and added:
            changed[path] = f"{'|'.join(sorted(before))} → {types}"
    return changed


def _are(noun: str, number: int) -> str:
    return f"{noun} is" if number == 1 else f"{noun}s are"


def _listed(fields: Mapping[str, str]) -> str:
    first = list(fields.items())[:LISTED]
    listed = [f"{path} ({types})" for path, types in first]
    if len(fields) > LISTED:
        listed.append(f"… {len(fields) - LISTED:,} more")
    return ", ".join(listed)


def destinations_agree(
    name: str,
    offered: Receipt,
    held: Holding | None,
    *,
    takes_all: bool,
) -> Finding:
    """The destination's ledger and rows agree with the receipt of the offered frame.

    Args:
        name: name of the destination.
        offered: receipt of the offered frame: ``kept`` rows with a content hash.
        held: the ledger's row of the hour, with the counted rows; None if the ledger does not know
            the hour.
        takes_all: whether the destination keeps every offered row.
    """
    facts: dict[str, int | float | str] = {f"rows of {offered.stage}": offered.kept}
    if held is None:
        sentence = f"{name} does not hold the hour: materialize it again."
        return Finding(False, sentence, facts, is_grave=True)
    facts |= {"rows in its ledger": held.rows, "content hash": held.content_hash}
    if held.counted is not None:
        facts["rows counted there"] = held.counted
    if held.version.standing(offered.version) == "other log":
        sentence = of_other_folder(
            parse_hour(offered.hour),
            held.version,
            offered.version,
        )
        return Finding(False, f"{name}: {sentence}.", facts, is_grave=True)
    wrong = _disagreements(offered, held, takes_all=takes_all)
    if wrong:
        sentence = f"{name}: {'; '.join(wrong)}: materialize the hour again."
        return Finding(False, sentence, facts, is_grave=True)
    rows = f"All {held.rows:,} rows of {offered.stage}"
    if not takes_all:
        rows += " that match"
    # A store that cannot count its rows is checked by its ledger alone.
    end = "" if held.counted is not None else ", by its ledger; the rows were not counted"
    return Finding(True, f"{rows} are in {name}{end}.", facts)


def _disagreements(
    offered: Receipt,
    held: Holding,
    *,
    takes_all: bool,
) -> list[str]:
    """Parts of a sentence, each about a difference between the ledger, the rows and the receipt."""
    wrong = []
    held_generation, generation = held.version.generation, offered.version.generation
    if held.version.standing(offered.version) != "same":
        wrong.append(
            f"its ledger names landing generation {held_generation:,}, the frame {generation:,}"
        )
    # Content of another generation differs anyway: one sentence about it is enough.
    elif held.content_hash != offered.content_hash:
        wrong.append("its ledger names other content than the frame has")
    if takes_all and held.rows != offered.kept:
        wrong.append(
            f"its ledger names {held.rows:,} rows, but {offered.stage} has {offered.kept:,}"
        )
    if held.counted not in (None, held.rows):
        wrong.append(f"its ledger names {held.rows:,} rows, but it holds {held.counted:,}")
    if held.altered:
        wrong.append(
            f"the columns of its rows were changed after the load, in {held.altered:,} groups"
        )
    return wrong
