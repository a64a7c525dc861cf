"""What may be wrong with an hour whose counts add up, and when to say so. Pure: who calls has read what is needed.

Every finding is a sentence for people, and facts: counts, names and paths, never a value of an event.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from obs_assets.destinations.base import Holding
from obs_assets.receipts import Receipt

LISTED, NAMED = 50, 3
"""Fields that a finding lists, and that its sentence names, at most."""

SAYS_LITTLE = {"null", "any"}
"""Types that fit beside every other one."""

HOURS_NEEDED = 3
"""Earlier hours whose fields must be known before a field counts as new."""

VALUES_NEEDED = 7
"""Earlier counts without which nobody can say what is usual."""


@dataclass(frozen=True)
class Finding:
    """What a check came to.

    Attributes:
        passed: whether all is as it should be.
        sentence: what was found, and what to do about it.
        facts: figures behind it, for who looks closer.
        is_grave: data is wrong; otherwise somebody should have a look.
    """

    passed: bool
    sentence: str
    facts: Mapping[str, int | float | str] = field(default_factory=dict)
    is_grave: bool = False


def receipt_adds_up(receipt: Receipt) -> Finding:
    """Every event that went in is kept, or set aside for a named reason."""
    aside = sum(receipt.other.values())
    facts = {
        "taken": receipt.taken,
        "kept": receipt.kept,
        "set aside": aside,
        "unaccounted": receipt.unaccounted,
    }
    counted = f"{receipt.taken:,} taken = {receipt.kept:,} kept + {aside:,} set aside"
    if receipt.unaccounted:
        counted = f"{counted.replace(' = ', ' ≠ ')}: {receipt.unaccounted:,} unaccounted for; nothing after it is built"
    return Finding(receipt.unaccounted == 0, f"{counted}.", facts, is_grave=True)


def dead_letter_share(dead: int, total: int, limit: float, where: str) -> Finding:
    """No more than a small part of what there was is a dead letter.

    Args:
        dead: dead letters.
        total: dead letters and events.
        limit: the largest share that is well, 0 to 1.
        where: of what, as it stands in the sentence.
    """
    share = dead / total if total else 0.0
    sentence = f"{dead:,} of {total:,} {where} ({share:.2%}) are dead letters"
    if share > limit:
        sentence += f", more than the {limit:.2%} that are allowed: see `obs dead-letters list`"
    return Finding(
        share <= limit,
        f"{sentence}.",
        {"dead letters": dead, "of": total, "share": share, "allowed": limit},
    )


def all_redacted(failed: int, taken: int) -> Finding:
    """The redactor could handle every event. An hour that lacks some is wrong, however few they are.

    Args:
        failed: events that the redactor could not handle, and that reach no destination.
        taken: events that it was given.
    """
    facts = {"not redacted": failed, "of": taken}
    if not failed:
        return Finding(True, f"All {taken:,} events could be redacted.", facts)
    sentence = (
        f"{failed:,} of {taken:,} events could not be redacted and reach no destination: "
        "see `obs dead-letters show --reason redactor_failed`."
    )
    return Finding(False, sentence, facts, is_grave=True)


def nothing_left(events: int, left: Mapping[str, int], unreadable: int, hour: str) -> Finding:
    """Redaction left nothing that a second opinion sees.

    Args:
        events: looked at.
        left: how many of what, where.
        unreadable: events that could not be looked into.
        hour: its key, for the command that looks at all of it.
    """
    facts: dict[str, int | str] = {
        "looked at": events,
        "left": sum(left.values()),
        "not looked into": unreadable,
    }
    if not left and not unreadable:
        return Finding(
            True, f"A second opinion finds nothing left in {events:,} redacted events.", facts
        )
    most = sorted(left, key=lambda what: (-left[what], what))
    named = (
        "; ".join(f"{left[what]:,} {what}" for what in most[:NAMED])
        or f"{unreadable:,} that cannot be looked into"
    )
    facts["leftovers"] = "\n".join(f"- {left[what]:,} `{what}`" for what in most[:LISTED])
    sentence = f"Redaction left something in {events:,} events, a second opinion says: {named}."
    return Finding(
        False, f"{sentence} `obs scan {hour}` looks at all of the hour.", facts, is_grave=True
    )


def volume(
    rows: int, before: Sequence[int], same_hour: Sequence[int], deviations: float
) -> Finding:
    """The hour has about as many events as hours usually have.

    An hour stands out when it does so both among the hours just before it and among the same hours of the days before:
    then neither the time of day nor a busy day explains it. A series of fewer than `VALUES_NEEDED` counts says
    nothing. The usual deviation is 1.4826 × the median absolute deviation, as for normal values, but at least the root
    of the median, which counts vary by anyhow, and a tenth of it, since even traffic is no alarm bell.

    Args:
        rows: of the hour.
        before: of the hours just before.
        same_hour: of the same hour on the days before.
        deviations: how far from the median is too far.
    """
    series = {"the hours before": before, "the same hour of the days before": same_hour}
    known = {
        name: list(counts) for name, counts in series.items() if len(counts) >= VALUES_NEEDED
    }
    facts: dict[str, int | float | str] = {"events": rows}
    if not known:
        return Finding(
            True,
            f"{rows:,} events; too few earlier hours are known to say whether that is usual.",
            facts,
        )
    stands_out = True
    for name, counts in known.items():
        median = statistics.median(counts)
        spread = 1.4826 * statistics.median(abs(count - median) for count in counts)
        away = (rows - median) / max(spread, median**0.5, median / 10, 1.0)
        stands_out = stands_out and abs(away) > deviations
        facts |= {f"median of {name}": median, f"deviations from {name}": round(away, 1)}
    usual = " and ".join(
        f"{statistics.median(counts):,.0f} in {name}" for name, counts in known.items()
    )
    if stands_out:
        more = "more" if rows > statistics.median(next(iter(known.values()))) else "fewer"
        return Finding(
            False, f"{rows:,} events, far {more} than usual: the median is {usual}.", facts
        )
    return Finding(True, f"{rows:,} events, as usual: the median is {usual}.", facts)


def schema_drift(now: Mapping[str, str], earlier: Sequence[Mapping[str, str]]) -> Finding:
    """No field is new, and none has another JSON type than before.

    Args:
        now: path → types of the hour, see `obs_assets.hourly.profile.fields_of`.
        earlier: the same of hours before it. A field that is missing now says nothing: rare events are rare.
    """
    facts: dict[str, int | float | str] = {"fields": len(now), "earlier hours": len(earlier)}
    if len(earlier) < HOURS_NEEDED:
        return Finding(
            True,
            f"{len(now):,} fields; too few earlier hours are known to say which are new.",
            facts,
        )
    known: dict[str, set[str]] = {}
    for fields in earlier:
        for path, types in fields.items():
            known.setdefault(path, set()).update(types.split("|"))
    new = {path: types for path, types in now.items() if path not in known}
    changed = {
        path: f"{'|'.join(sorted(known[path] - SAYS_LITTLE))} → {types}"
        for path, types in now.items()
        if path in known
        and known[path] - SAYS_LITTLE
        and set(types.split("|")) - known[path] - SAYS_LITTLE
    }
    if not new and not changed:
        return Finding(
            True,
            f"All {len(now):,} fields were there in the {len(earlier)} hours before.",
            facts,
        )
    counts = {"new": len(new), "of another type than before": len(changed)}
    said = " and ".join(
        f"{n:,} {'field is' if n == 1 else 'fields are'} {what}"
        for what, n in counts.items()
        if n
    )
    listed = {"new fields": new, "changed fields": changed}
    facts |= {title: _listed(fields) for title, fields in listed.items() if fields}
    named = ", ".join([*new, *changed][:NAMED]) + (
        " …" if len(new) + len(changed) > NAMED else "."
    )
    return Finding(False, f"{said}: {named}", facts)


def _listed(fields: Mapping[str, str]) -> str:
    listed = [f"{path} ({types})" for path, types in list(fields.items())[:LISTED]]
    return ", ".join(
        [*listed, *([f"… {len(fields) - LISTED:,} more"] if len(fields) > LISTED else [])]
    )


def destinations_agree(
    name: str, offered: Receipt, held: Holding | None, *, takes_all: bool
) -> Finding:
    """What a destination's ledger says, and what is there, are what the frame's receipt says.

    Whoever agrees with the receipt agrees with every other destination that does.

    Args:
        name: the destination's.
        offered: the receipt of what it was offered: ``kept`` rows of a content hash.
        held: what it has, counted; None when its ledger does not know the hour.
        takes_all: whether it keeps every row that it is offered.
    """
    facts: dict[str, int | float | str] = {f"rows of {offered.stage}": offered.kept}
    if held is None:
        return Finding(
            False, f"{name} does not know the hour: materialize it again.", facts, is_grave=True
        )
    facts |= {"rows in its ledger": held.rows, "content hash": held.content_hash}
    if held.counted is not None:
        facts["rows counted there"] = held.counted
    wrong = []
    if held.version.generation != offered.version.generation:
        wrong.append(
            f"its ledger names landing generation {held.version.generation:,}, the frame {offered.version.generation:,}"
        )
    elif held.content_hash != offered.content_hash:
        wrong.append("its ledger names other content than the frame has")
    if takes_all and held.rows != offered.kept:
        wrong.append(
            f"its ledger names {held.rows:,} rows where {offered.stage} has {offered.kept:,}"
        )
    if held.counted not in (None, held.rows):
        wrong.append(f"{held.counted:,} rows are there where its ledger names {held.rows:,}")
    if held.altered:
        wrong.append(
            f"the columns of its rows were changed after the load, in {held.altered:,} groups"
        )
    if wrong:
        return Finding(
            False,
            f"{name}: {'; '.join(wrong)}: materialize the hour again.",
            facts,
            is_grave=True,
        )
    rows = f"{held.rows:,} rows" if takes_all else f"what it was to take ({held.rows:,} rows)"
    counted = "" if held.counted is None else ", counted there,"
    return Finding(
        True, f"{name} holds {rows}{counted} of {offered.stage}, by ledger and receipt.", facts
    )
