"""Receipts: the counts of an hour at a stage or destination, which must add up."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from obs_assets.errors import ReceiptError

# Titles among a receipt's details, stored in receipts: see `obs_assets.hourly.profile`
FIELDS = "fields"
LEVELS_BY_MINUTE = "levels by minute"
COST = "cost"

ALREADY_THERE = "already there"
"""Reason of rows that a destination held before: nothing was written, nothing is lost."""


@dataclass(frozen=True)
class InputVersion:
    """The version of an hour's frame: landed events, configuration and code.

    Attributes:
        generation: landing generation, a number that grows whenever events land in the hour. It
            alone says which of two versions is newer.
        config_hash: hash of the configuration of the stage and all stages before it.
        code_version: code versions of the stage and all stages before it, with dots between them.
    """

    generation: int
    config_hash: str
    code_version: str

    def __str__(self) -> str:
        return f"{self.generation}-{self.config_hash}-{self.code_version}"


@dataclass(frozen=True)
class Receipt:
    """The counts of an hour at a stage or destination: ``taken = kept + sum(other.values())``.

    Attributes:
        hour: Dagster's partition key.
        stage: asset name of the stage or destination.
        version: version of the frame; at a destination, of the offered frame.
        taken: number of rows of the input.
        kept: number of rows that the stage passed on, or that the destination wrote.
        other: reason → number of all other rows of the input: ``filtered:low_value``,
            ``sampled_out:success``, ``already there``.
        details: title → counts that explain the hour and need not add up, for example redacted
            values by type.
        content_hash: hash of the kept rows, see `obs_assets.events.CONTENT_HASH`.
        size_bytes: bytes of the written file or rows.
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
        """Number of rows that are neither kept nor in ``other``; 0 in a receipt that adds up."""
        return self.taken - self.kept - sum(self.other.values())

    def check(self) -> "Receipt":
        """Return this receipt.

        Raises:
            ReceiptError: the counts do not add up.
        """
        if self.unaccounted:
            set_aside = sum(self.other.values())
            raise ReceiptError(
                f"{self.stage} {self.hour}: {self.taken:,} taken, {self.kept:,} kept and "
                f"{set_aside:,} set aside leave {self.unaccounted:,} unaccounted for"
            )
        return self

    def to_json(self) -> str:
        """The receipt as a JSON document; equal receipts give equal text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Receipt":
        """Read a receipt from the text of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: the text is damaged.
        """
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "version": InputVersion(**values["version"])})
