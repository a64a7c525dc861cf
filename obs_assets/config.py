"""What every configurable block of a pipeline has in common."""

from pydantic import BaseModel


class Block(BaseModel, frozen=True, extra="forbid", populate_by_name=True):
    """A strict, immutable block of configuration.

    Attributes:
        enabled: a disabled block does nothing; for the redact block see `obs_assets.transforms.redact`.
        name: shown in the UI and in messages; the block's type by default. A destination's name is its asset's name.
    """

    enabled: bool = True
    name: str | None = None
