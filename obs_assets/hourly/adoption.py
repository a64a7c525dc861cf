"""Hours that another data folder loaded become this folder's, on purpose: ``obs adopt``.

A data folder was lost or doubled, or hours were restored into an empty one: the ledgers of the destinations name a
landing log that is not this folder's. Until an hour is adopted, this folder leaves it alone.
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
MEANINGS: dict[Outcome, str] = {
    "matches": "same content: the ledger alone changes",
    "differs": "other content: the next build replaces it",
    "missing": "nothing to build it from in this folder: left alone",
}


@dataclass(frozen=True)
class Adoption:
    """What becomes of an hour at a destination.

    Attributes:
        hour, destination: where.
        outcome: a key of `MEANINGS`.
        from_log: short form of the landing log that the ledger names.
        rows_there, hash_there: what the ledger says; rows as counted there, where they can be.
        rows_here, hash_here: what this folder would offer.
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
    """Take hours over that destinations hold from another data folder, or from before logs had an identity.

    The frames of such an hour are built here if they are not yet: what would be offered is compared with the ledger.
    An hour of the same content gets this log's identity in the ledger. An hour of other content gets it with
    generation 0, so that it counts as stale and the next build replaces it.

    Args:
        hourly: the pipeline of this folder.
        hours: which.
        dry_run: compare only; nothing changes at a destination.

    Raises:
        ConfigurationError: this folder's landing log has no identity yet.
        ObsError: a frame cannot be built, or a destination cannot be asked.
    """
    landed = hourly.landed()
    if not landed.log_id:
        raise ConfigurationError(
            "the landing log of this data folder has no identity yet: it gets one at the next pass that lands events"
        )
    for hour in hours:
        for name in hourly.destination_names:
            destination = hourly.destination(name)
            held = destination.holding(hour, count=True)
            if held is None or held.version.log_id == landed.log_id:
                continue
            offer = _offer(hourly, landed, name, hour)
            found = _compared(hour, name, held, offer)
            if offer and not dry_run:
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
    """What this folder would offer of an hour; None where nothing has landed, or what had landed has expired."""
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
        *(hour, name, outcome, from_log, there, held.content_hash),
        rows_here=offer.rows,
        hash_here=offer.content_hash,
    )
