"""When the checks of an hour warn: the options; the checks are in `obs_assets.audit.checks`."""

from pydantic import Field

from obs_assets.config import Block


class ChecksConfig(Block, frozen=True):
    """When the asset checks of an hour warn.

    Attributes:
        dead_letter_share: warn when a larger share of the events became dead letters.
        volume_deviations: warn when the number of events is further from the usual number than
            this many usual deviations. Usual is the median of the hours before, and of the same
            hour on the days before.
        schema_hours: number of earlier hours whose fields count as known; a new field is a
            warning.
        leftover_sample: number of redacted events of an hour that independent rules search for
            personal data; 0 turns the search off.
    """

    dead_letter_share: float = Field(
        0.01, ge=0, le=1, json_schema_extra={"unit": "share, 0 to 1"}
    )
    volume_deviations: float = Field(
        5.0,
        gt=0,
        json_schema_extra={"unit": "usual deviations"},
    )
    schema_hours: int = Field(48, ge=1, le=24 * 31)
    leftover_sample: int = Field(
        1_000,
        ge=0,
        json_schema_extra={"unit": "events"},
    )
