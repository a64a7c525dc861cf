"""Receipts: the counts of an hour at a stage or destination, which must add up."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from obs_assets.errors import ReceiptError

# Titles among a receipt's details, stored in receipts: see `obs_assets.hourly.profile`
FIELDS = "fields"
LEVELS_BY_MINUTE = "levels by minute"
COST = "cost"

ALREADY_THERE = "already there"
"""Reason of rows that a destination held before: nothing was written, nothing is lost."""


Standing = Literal["older", "same", "newer", "other log"]
"""How one version of an hour stands to another one."""


@dataclass(frozen=True)
class InputVersion:
    """The version of an hour's frame: landed events, configuration and code.

    Attributes:
        generation: the landing generation: grows whenever the hour gets bytes. It counts passes of one landing log:
            compare it by `standing` only.
        config_hash: of the configuration that the stage and those before it ran with.
        code_version: of the stage and those before it.
        log_id: identity of the landing log; empty in what was written before logs had one.
    """

    generation: int
    config_hash: str
    code_version: str
    log_id: str = ""

    @property
    def recipe(self) -> tuple[str, str]:
        """Configuration and code, whatever has landed."""
        return self.config_hash, self.code_version

    @property
    def landing(self) -> str:
        """What has landed, as one word: the same word means the same events. ``0`` before anything has."""
        if self.generation and self.log_id:
            return f"{self.generation}-{short_id(self.log_id)}"
        return str(self.generation)

    def standing(self, landed: "InputVersion") -> Standing:
        """How this version, which a destination holds, stands to what a landing log has.

        The only place where generations are compared. A holding without identity counts as one of this log, unless its
        generation is higher: a log that has an identity has already counted all passes that it made without one.
        """
        if self.log_id not in ("", landed.log_id):
            return "other log"
        if self.generation == landed.generation:
            return "same"
        if self.generation < landed.generation:
            return "older"
        return "newer" if self.log_id == landed.log_id else "other log"

    def __str__(self) -> str:
        return f"{self.generation}-{self.config_hash}-{self.code_version}"


NOTHING_LANDED = InputVersion(0, "", "")
"""Of an hour for which nothing has landed, in any log."""


def short_id(log_id: str) -> str:
    """The short form of a landing log's identity, for messages."""
    return log_id[:8] or "without identity"


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
