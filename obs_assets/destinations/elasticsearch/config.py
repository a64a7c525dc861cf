"""Options of an Elasticsearch destination."""

from typing import Literal

from pydantic import Field

from obs_assets.destinations.mapping import MappingName
from obs_assets.destinations.posting import PostingConfig
from obs_assets.hours import Hour

MIB = 1 << 20


class ElasticsearchConfig(PostingConfig, frozen=True):
    """Hours as documents in Elasticsearch or OpenSearch; the address comes from ``ELASTICSEARCH_URL``.

    Attributes:
        type: ``elasticsearch`` or ``opensearch``, which mean the same: the server says which it is.
        index: alias of the events, and beginning of the names of the daily indices, for example
            ``obs-events-2025.12.04``. The index ``<index>_ledger`` holds the ledger.
        mapping: names of the fields, see docs/mappings.md. Each document also has the whole event:
            ``data`` to search its keys, ``event.original`` (``original`` without ECS) to read its text.
        connections: requests that are sent at the same time at most; the number adapts to the receiver. A
            document that is sent twice is stored once.
        request_size_mb: size of a request body. The server refuses bodies above its own limit,
            ``http.max_content_length``, 100 MB by default.
        shards: primary shards of a daily index.
        replicas: copies of each shard.
    """

    type: Literal["elasticsearch", "opensearch"] = "elasticsearch"
    index: str = Field(
        "obs-events",
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,200}$",
        examples=["agent-events"],
    )
    mapping: MappingName = "ecs"
    connections: int = Field(8, ge=1, le=64, json_schema_extra={"unit": "requests"})
    request_size_mb: float = Field(
        5.0, ge=0.05, le=90, examples=[10.0], json_schema_extra={"unit": "MiB"}
    )
    shards: int = Field(1, ge=1, le=100, json_schema_extra={"unit": "shards"})
    replicas: int = Field(1, ge=0, le=10, json_schema_extra={"unit": "copies"})

    def index_of(self, hour: Hour) -> str:
        """Name of the daily index with the documents of an hour."""
        return f"{self.index}-{hour.start:%Y.%m.%d}"

    @property
    def request_bytes(self) -> int:
        """``request_size_mb`` in bytes."""
        return int(self.request_size_mb * MIB)

    @property
    def ledger_index(self) -> str:
        """Name of the index with a document for each delivered hour."""
        return f"{self.index}_ledger"
