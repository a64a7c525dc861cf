"""The stages, a row each: names, columns, checks and versions, without the code that computes them."""

from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["raw_events", "enriched_events", "redacted_events", "sampled_events"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""Names of the stages, in the order in which events pass through them."""


@dataclass(frozen=True)
class StageRow:
    """One stage.

    Attributes:
        name: name of the stage and its asset.
        upstream: asset that it is built from.
        blocks: blocks of the configuration that its frame depends on.
        code_version: number that grows with every change of the code that changes the frame of the
            same input.
        description: text on the asset's page.
        drops: reasons for which it can drop events; empty if it keeps all events.
        columns: columns of its frame beside lineage, promoted columns and ``event``.
        checks: names of its checks beside the receipt check; see `obs_assets.audit.review`.
        is_redacted: its frame holds no personal data, so it is hashed, scanned and offered to
            destinations.
        needs_landed: it cannot be built again after the landed events of the hour have expired.
    """

    name: Stage
    upstream: str
    blocks: tuple[str, ...]
    code_version: int
    description: str
    drops: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    is_redacted: bool = False
    needs_landed: bool = True


ROWS: tuple[StageRow, ...] = (
    StageRow(
        name="raw_events",
        upstream="landed_events",
        blocks=("source",),
        code_version=7,
        description=(
            "The hour's events as a typed frame, sorted by event time and row identity. "
            "Holds personal data."
        ),
        columns=("event_file", "collector"),
        checks=("unreadable lines", "volume"),
    ),
    StageRow(
        name="enriched_events",
        upstream="raw_events",
        blocks=("enrich",),
        code_version=7,
        description=(
            "With duration, cost and context added, from the event and from the record of its landing. "
            "Holds personal data."
        ),
    ),
    StageRow(
        name="redacted_events",
        upstream="enriched_events",
        blocks=("redact",),
        code_version=10,
        description="Without personal data and secrets. The first frame that may be shown.",
        drops=("redactor_failed",),
        columns=("redactions",),
        checks=("events without redaction", "schema"),
        is_redacted=True,
    ),
    StageRow(
        name="sampled_events",
        upstream="redacted_events",
        blocks=("filter", "sample"),
        code_version=6,
        description=(
            "Filtered by rule, then sampled; each event carries the number of events that it stands for."
        ),
        drops=("filtered:<rule>", "sampled_out:<stratum>"),
        columns=("weight",),
        is_redacted=True,
        needs_landed=False,
    ),
)

CODE_VERSIONS: dict[Stage, int] = {row.name: row.code_version for row in ROWS}
"""Stage → version of its code."""

UNREDACTED = tuple(row.name for row in ROWS if not row.is_redacted)
"""Stages whose frames hold events before redaction."""

REDACTED = tuple(row.name for row in ROWS if row.is_redacted)
"""Stages whose frames may be shown, and are offered to destinations."""


def row_of(stage: Stage) -> StageRow:
    """The row of a stage."""
    return ROWS[STAGES.index(stage)]
