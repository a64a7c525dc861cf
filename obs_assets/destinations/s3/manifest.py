"""What an hour is: the manifest, written last."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from obs_assets.destinations.base import Holding
from obs_assets.receipts import InputVersion


@dataclass(frozen=True)
class StoredObject:
    """One object of an hour.

    Attributes:
        sha256: of the bytes as stored.
        etag: the store's name for this content.
        version_id: the store's name for this version, where the bucket keeps versions.
    """

    key: str
    rows: int
    bytes: int
    uncompressed_bytes: int
    sha256: str
    etag: str
    version_id: str | None = None


@dataclass(frozen=True)
class Manifest:
    """What an hour is: its objects, in order, and what they were built from."""

    hour: str
    version: InputVersion
    rows: int
    content_hash: str
    objects: tuple[StoredObject, ...]

    @property
    def holding(self) -> Holding:
        """The manifest as the ledger's row that it is."""
        return Holding(self.version, self.rows, self.content_hash)

    def to_json(self) -> str:
        """The manifest as a JSON document, the same text for the same manifest."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Read what `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        objects = tuple(StoredObject(**stored) for stored in values["objects"])
        return cls(
            **{**values, "version": InputVersion(**values["version"]), "objects": objects}
        )
