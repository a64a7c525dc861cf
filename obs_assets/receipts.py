"""Receipts: the counts of an hour at a stage or destination, which must add up."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from obs_assets.errors import ReceiptError

# These titles are stored in the details of receipts, see `obs_assets.hourly.profile`: never change them.
FIELDS = "fields"
"""Title of a detail: path of a field → its JSON types."""

LEVELS_BY_MINUTE = "levels by minute"
"""Title of a detail: level → numbers of events of each minute."""

COST = "cost"
"""Title of a detail: the costs of the hour, USD."""

ALREADY_THERE = "already there"
"""Reason of rows that a destination held before. They are not written again."""


Standing = Literal["older", "same", "newer", "other log"]
"""Relation of a version of an hour to the landed version; ``other log``: the versions cannot be compared."""


@dataclass(frozen=True)
class InputVersion:
    """The version of an hour's frame: landed events, configuration and code.

    Attributes:
        generation: the landing generation, which grows whenever the hour gets bytes. It counts passes of
            a landing log, so `standing` alone compares generations.
        config_hash: hash of the configuration of the stage and the stages before it.
        code_version: code version of the stage and the stages before it.
        log_id: identity of the landing log; empty for versions from before logs had an identity.
    """

    generation: int
    config_hash: str
    code_version: str
    log_id: str = ""

    @property
    def recipe(self) -> tuple[str, str]:
        """Configuration and code, without the landed events."""
        return self.config_hash, self.code_version

    @property
    def landing(self) -> str:
        """The landed events as a word, for example ``3-1f0c2a9b``; equal words mean equal events.

        ``0`` before the hour's first event has landed.
        """
        if self.generation and self.log_id:
            return f"{self.generation}-{short_id(self.log_id)}"
        return str(self.generation)

    def standing(self, landed: "InputVersion") -> Standing:
        """The relation of this version, which a destination holds, to the version that has landed.

        Generations are compared only here. A version without an identity counts as a version of this log,
        unless its generation is higher. The log had made all its passes without an identity before it got
        its identity, so it cannot have a lower generation than a version of that time.
        """
        # Every log counts from 1, so generations of two logs have no order.
        if self.log_id not in ("", landed.log_id):
            return "other log"
        if self.generation == landed.generation:
            return "same"
        if self.generation < landed.generation:
            return "older"
        if self.log_id == landed.log_id:
            return "newer"
        return "other log"

    def __str__(self) -> str:
        return f"{self.generation}-{self.config_hash}-{self.code_version}"


NOTHING_LANDED = InputVersion(0, "", "")
"""The version of an hour without a landed event, in any log."""


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
