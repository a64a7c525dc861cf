"""Takes over hours that another data folder loaded, for the command ``obs adopt``.

After a data folder was lost or copied, or hours were restored into an empty folder, the ledgers of the
destinations name a landing log that is not the log of this folder. This folder does not touch such an
hour until it is adopted.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from obs_assets.destinations.base import Holding, Offer
from obs_assets.errors import ConfigurationError, HourExpiredError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion, short_id
from obs_assets.sources.log import Landed

Outcome = Literal["matches", "differs", "missing"]
"""Result of the comparison of an hour at a destination with the hour of this folder."""

MEANINGS: dict[Outcome, str] = {
    "matches": "same content: the ledger alone changes",
    "differs": "other content: the next build replaces it",
    "missing": "this folder has no events of the hour: left alone",
}
"""Outcome → its meaning, for the output of the command."""


@dataclass(frozen=True)
class Adoption:
    """The adoption of an hour at a destination.

    Attributes:
        hour: the hour.
        destination: asset name of the destination.
        outcome: a key of `MEANINGS`.
        from_log: short form of the identity of the landing log that the ledger names.
        rows_there: number of rows at the destination, counted, or by its ledger if they cannot be counted.
        hash_there: content hash in the ledger.
        rows_here: number of rows that this folder would offer.
        hash_here: content hash of these rows.
    """

    hour: Hour
    destination: str
    outcome: Outcome
    from_log: str
    rows_there: int
    hash_there: str
    rows_here: int = 0
    hash_here: str = ""


def adopt(
    hourly: HourlyPipeline, hours: Iterable[Hour], *, dry_run: bool = False
) -> Iterator[Adoption]:
    """Take over hours that destinations hold from another data folder, or from a log without an identity.

    The frames of such an hour are built in this folder if necessary, and compared with the ledger. An hour
    of the same content gets the identity of this folder's log in the ledger. An hour of other content gets
    it with generation 0, so that it counts as stale and the next build replaces it.

    Args:
        hourly: the pipeline of this folder.
        hours: the hours to take over.
        dry_run: compare only; nothing changes at a destination.

    Raises:
        ConfigurationError: this folder's landing log has no identity yet.
        ObsError: a frame cannot be built, or a destination does not answer.
    """
    landed = hourly.landed()
    if not landed.log_id:
        raise ConfigurationError(
            "the landing log of this data folder has no identity yet: "
            "the next pass that lands events gives it an identity"
        )
    for hour in hours:
        for name in hourly.destination_names:
            destination = hourly.destination(name)
            held = destination.holding(hour, count=True)
            # This folder's hours need no adoption, and a missing hour is loaded by the next build.
            if held is None or held.version.log_id == landed.log_id:
                continue
            offer = _offer(hourly, landed, name, hour)
            found = _compared(hour, name, held, offer)
            if offer and not dry_run:
                # No landed hour has generation 0, so this version is older than every landed hour.
                version = InputVersion(0, "", "", landed.log_id)
                if found.outcome == "matches":
                    version = InputVersion(
                        offer.version.generation, *offer.version.recipe, landed.log_id
                    )
                destination.adopt(hour, held, version)
            yield found


def _offer(
    hourly: HourlyPipeline,
    landed: Landed,
    name: str,
    hour: Hour,
) -> Offer | None:
    """The offer of this folder for an hour; None if no event has landed, or its landed events have expired."""
    version = landed.version(hour)
    if not version.generation:
        return None
    try:
        for stage in STAGES:
            receipt = hourly.store.find_receipt(stage, hour)
            if receipt is None or receipt.version.standing(version) != "same":
                hourly.build(stage, hour)
    except HourExpiredError:
        return None
    with hourly.database.cursor() as connection:
        return hourly.offer(connection, name, hour)


def _compared(
    hour: Hour,
    name: str,
    held: Holding,
    offer: Offer | None,
) -> Adoption:
    there = held.rows if held.counted is None else held.counted
    from_log = short_id(held.version.log_id)
    if offer is None:
        return Adoption(hour, name, "missing", from_log, there, held.content_hash)
    is_whole = there == held.rows and not held.altered
    is_same = is_whole and held.content_hash == offer.content_hash
    outcome: Outcome = "matches" if is_same else "differs"
    return Adoption(
        hour,
        name,
        outcome,
        from_log,
        there,
        held.content_hash,
        rows_here=offer.rows,
        hash_here=offer.content_hash,
    )
