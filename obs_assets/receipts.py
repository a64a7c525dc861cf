"""Receipts: what a stage did with an hour, in counts that must add up."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from obs_assets.errors import ReceiptError

FIELDS, LEVELS_BY_MINUTE, COST = "fields", "levels by minute", "cost"
"""Among a receipt's details, from ``redacted_events`` on: see `obs_assets.hourly.profile`."""

ALREADY_THERE = "already there"
"""Reason of rows that a destination held before: nothing was written, nothing is lost."""


@dataclass(frozen=True)
class InputVersion:
    """What an hour was built from.

    Attributes:
        generation: the landing generation: grows whenever the hour gets bytes. Alone decides older or newer.
        config_hash: of the configuration that the stage and those before it ran with.
        code_version: of the stage and those before it.
    """

    generation: int
    config_hash: str
    code_version: str

    def __str__(self) -> str:
        return f"{self.generation}-{self.config_hash}-{self.code_version}"


@dataclass(frozen=True)
class Receipt:
    """One stage's or destination's account of one hour: ``taken = kept + sum(other.values())``.

    Attributes:
        hour: Dagster's partition key.
        stage: the asset's name.
        version: what it was built from.
        taken: rows it was given.
        kept: rows it passed on; at a destination, rows written.
        other: every row that is neither, by reason: ``filtered:low_value``, ``sampled_out:success``, ``already there``.
        details: counts that explain and do not have to add up, for example redacted values by type.
        content_hash: of the rows it passed on, see `obs_assets.events.CONTENT_HASH`.
        size_bytes: of what it wrote.
    """

    hour: str
    stage: str
    version: InputVersion
    taken: int
    kept: int
    other: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, int | float | str]] = field(default_factory=dict)
    content_hash: str = ""
    size_bytes: int = 0

    @property
    def unaccounted(self) -> int:
        """Rows that went in and are nowhere; 0 in a receipt that adds up."""
        return self.taken - self.kept - sum(self.other.values())

    def check(self) -> "Receipt":
        """This receipt, if it adds up.

        Raises:
            ReceiptError: it does not.
        """
        if self.unaccounted:
            raise ReceiptError(
                f"{self.stage} {self.hour}: {self.taken:,} taken, {self.kept:,} kept and "
                f"{sum(self.other.values()):,} set aside leave {self.unaccounted:,} unaccounted for"
            )
        return self

    def to_json(self) -> str:
        """The receipt as a JSON document, the same text for the same receipt."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Receipt":
        """Read what `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "version": InputVersion(**values["version"])})
