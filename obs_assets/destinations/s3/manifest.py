"""The manifest of an hour: its objects, and the version of its inputs. It is written last."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from obs_assets.destinations.base import Holding
from obs_assets.receipts import InputVersion


@dataclass(frozen=True)
class StoredObject:
    """An object of an hour.

    Attributes:
        key: key of the object.
        rows: number of rows in it.
        bytes: size of the object in bytes.
        uncompressed_bytes: size before compression, in bytes.
        sha256: SHA-256 of the stored bytes, 64 hexadecimal digits.
        etag: tag that the store gives to this content.
        version_id: name of this version, if the bucket keeps versions.
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
    """The objects of an hour, in their order.

    Attributes:
        hour: key of the hour, for example ``2025-12-04-10:00``.
        version: the inputs that the hour was built from.
        rows: number of rows in all objects.
        content_hash: hash of the hour's frame.
        objects: the objects.
    """

    hour: str
    version: InputVersion
    rows: int
    content_hash: str
    objects: tuple[StoredObject, ...]

    @property
    def holding(self) -> Holding:
        """The manifest as a row of the ledger."""
        return Holding(self.version, self.rows, self.content_hash)

    def to_json(self) -> str:
        """The manifest as a JSON document; equal manifests give equal text."""
        return (
            json.dumps(
                asdict(self),
                indent=2,
                sort_keys=True,
            )
            + "\n"
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Read a document of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: the text is no manifest.
        """
        values: dict[str, Any] = json.loads(text)
        objects = tuple(StoredObject(**stored) for stored in values["objects"])
        version = InputVersion(**values["version"])
        return cls(**{**values, "version": version, "objects": objects})
