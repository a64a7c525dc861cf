"""Elasticsearch and OpenSearch: an hour is a set of documents that replaces its older version.

`config` has the options, `documents` turns rows into the bodies of requests, `cluster` sends them, and
`destination` delivers hours and keeps the ledger.
"""

from obs_assets.destinations.elasticsearch.config import ElasticsearchConfig
from obs_assets.destinations.elasticsearch.destination import ElasticsearchDestination

__all__ = ["ElasticsearchConfig", "ElasticsearchDestination"]
