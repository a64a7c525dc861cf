"""Elasticsearch as a destination: an hour's documents replace those of its older version."""

import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from http import HTTPStatus
from typing import Any

import duckdb
import pyarrow as pa

from obs_assets.crash import crash_point
from obs_assets.destinations.base import Delivery, Holding, Offer, refuse_older
from obs_assets.destinations.elasticsearch.cluster import Cluster, Verdicts
from obs_assets.destinations.elasticsearch.config import ElasticsearchConfig
from obs_assets.destinations.elasticsearch.documents import (
    Body,
    Documents,
    index_mappings,
    original_path,
)
from obs_assets.destinations.sending import Gate, flow
from obs_assets.errors import HourBusyError, TransientError
from obs_assets.events import Frame, one_of
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import ElasticsearchSettings

READ_DOCUMENTS = 1_000
"""Documents of an answer when an hour is read back."""

READ_HOURS = 1_000
"""Hours of an answer when the ledger is read."""

STORED = pa.schema({"row_uid": pa.string(), "event": pa.string()})


@dataclass(frozen=True)
class LedgerEntry:
    """The ledger's document of an hour.

    Attributes:
        hour: key of the hour.
        state: ``writing`` from the first to the last change of a delivery, then ``held``.
        attempt: counts the deliveries of the hour; it is the external version of their documents, so that
            a delivery that was overtaken changes no document.
        build: identity of the delivery whose documents are valid.
        rows: number of documents.
        content_hash: see `obs_assets.events.CONTENT_HASH`.
        version: the inputs of the hour.
        refused: kind of error → number of rows that the server does not take.
        loaded_at: time of the delivery, UTC, ISO 8601.
    """

    hour: str
    state: str
    attempt: int
    build: str
    rows: int
    content_hash: str
    version: dict[str, Any]
    refused: dict[str, int]
    loaded_at: str

    @property
    def holding(self) -> Holding:
        """The entry as every destination gives it."""
        return Holding(InputVersion(**self.version), self.rows, self.content_hash)


class ElasticsearchDestination:
    """Keeps hours in daily indices behind an alias.

    A delivery goes through five steps: the ledger says ``writing``; the documents are indexed under
    their ``row_uid``; a refresh makes them searchable; documents of the hour from older deliveries are
    deleted; the ledger says ``held``. After a crash at any point the ledger says ``writing``, so that
    the hour counts as missing and the next run does all steps again.

    Args:
        config: options of the destination.
        settings: address and credentials of the cluster.
        clock: gives the time, UTC.
        gate: makes the gate of a door from its address.
        sleep: waits for a number of seconds between two attempts.
    """

    def __init__(
        self,
        config: ElasticsearchConfig,
        settings: ElasticsearchSettings,
        clock: Callable[[], datetime],
        gate: Callable[[str], Gate] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.config = config
        self._cluster = Cluster(config, settings, gate, sleep)
        self._clock = clock
        self._lock = threading.Lock()

    def deliver(self, offer: Offer) -> Delivery:
        """Replace the hour's documents; see `base.Destination.deliver`."""
        self._prepare()
        held, tag = self._entry(offer.hour)
        refuse_older(self._where, held.holding if held else None, offer)
        if held and not offer.rebuild and self._is_same(held, offer):
            return Delivery(written=0, already_there=held.rows, refused=held.refused)
        attempt = 1 + (held.attempt if held else 0)
        entry = LedgerEntry(
            hour=offer.hour.key,
            state="writing",
            attempt=attempt,
            build=f"{attempt}-{offer.version}-{offer.content_hash}",
            rows=offer.rows,
            content_hash=offer.content_hash,
            version=asdict(offer.version),
            refused={},
            loaded_at=self._clock().isoformat(),
        )
        tag = self._write_entry(entry, tag)
        crash_point("elasticsearch.after_ledger")
        index = self.config.index_of(offer.hour)
        # An index that is there already is answered with 400.
        self._cluster.ask("PUT", index, {}, allowed={HTTPStatus.BAD_REQUEST: None})
        verdicts, size = self._index(offer, entry)
        crash_point("elasticsearch.after_documents")
        self._refresh(index)
        removed = self._remove_others(index, entry)
        crash_point("elasticsearch.after_removal")
        kept = offer.rows - len(verdicts.refused)
        counted = self._count(offer.hour)
        if counted != kept:
            raise TransientError(
                f"{self._where} has {counted:,} documents of {offer.hour}, not {kept:,}: "
                "another program changes the index, or another run writes the hour"
            )
        refused = _by_reason(verdicts.refused)
        self._write_entry(replace(entry, state="held", rows=kept, refused=refused), tag)
        crash_point("elasticsearch.after_commit")
        return Delivery(
            written=kept,
            refused=refused,
            size_bytes=size,
            stats={"index": index, "documents of older versions": removed},
        )

    def holding(self, hour: Hour, *, count: bool = False) -> Holding | None:
        """The ledger's entry of an hour; see `base.Destination.holding`."""
        entry, _ = self._entry(hour)
        if entry is None or entry.state != "held":
            return None
        if not count:
            return entry.holding
        return replace(entry.holding, counted=self._count(hour))

    def holdings(self) -> Mapping[Hour, Holding]:
        """Hour → its entry in the ledger, for hours that have a document or need none."""
        present = set(self._hours_with_documents())
        return {
            parse_hour(entry.hour): entry.holding
            for entry in self._entries()
            if entry.state == "held" and (entry.hour in present or entry.rows == 0)
        }

    def adopt(self, hour: Hour, held: Holding, version: InputVersion) -> None:
        """Write the ledger's entry with another version; see `base.Destination.adopt`."""
        entry, tag = self._entry(hour)
        expected = (held.version, held.content_hash)
        if entry is None or (entry.holding.version, entry.content_hash) != expected:
            raise HourBusyError(f"{self._where} holds another {hour} by now: try again")
        self._write_entry(replace(entry, version=asdict(version)), tag)

    def selected(self, frame: Frame) -> Frame:
        """All rows."""
        return frame

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """``row_uid`` and ``event`` of each document of the hour, whatever delivery wrote it."""
        name = f"read_back_elasticsearch_{hour.stamp}"
        connection.execute(
            f'CREATE OR REPLACE TEMP TABLE "{name}" (row_uid VARCHAR, event VARCHAR)'
        )
        for rows in self._pages(hour):
            page = connection.from_arrow(pa.Table.from_pylist(rows, STORED))
            page.insert_into(name)
        return connection.table(name)

    def check(self) -> str:
        """Connect to the cluster; returns its address as a line of text."""
        found = self._about
        number = found["version"]["number"]
        product = "OpenSearch" if self._is_opensearch else "Elasticsearch"
        return f"{product} {number} at {self._cluster.url}, index {self.config.index}"

    # -- the cluster

    @property
    def _where(self) -> str:
        return f"{self._cluster.url}/{self.config.index}"

    @functools.cached_property
    def _about(self) -> Any:
        return self._cluster.ask("GET", "")

    @property
    def _is_opensearch(self) -> bool:
        return bool(self._about["version"].get("distribution") == "opensearch")

    def _prepare(self) -> None:
        """Write the index template and make the ledger's index, once in a process."""
        with self._lock:
            self._prepared  # noqa: B018 - computed once

    @functools.cached_property
    def _prepared(self) -> bool:
        mappings = index_mappings(self.config.mapping, is_opensearch=self._is_opensearch)
        settings = {
            "number_of_shards": self.config.shards,
            "number_of_replicas": self.config.replicas,
        }
        template = {
            # Years; an index with a longer name of the same beginning is not a day of this one.
            "index_patterns": [f"{self.config.index}-1*", f"{self.config.index}-2*"],
            "priority": 200,
            "template": {
                "settings": settings,
                "mappings": mappings,
                "aliases": {self.config.index: {}},
            },
        }
        self._cluster.ask("PUT", f"_index_template/{self.config.index}", template)
        ledger = {
            "settings": {**settings, "number_of_shards": 1},
            "mappings": {
                "dynamic": False,
                "properties": {"hour": {"type": "keyword"}, "state": {"type": "keyword"}},
            },
        }
        # An index that is there already is answered with 400.
        self._cluster.ask(
            "PUT",
            self.config.ledger_index,
            ledger,
            allowed={HTTPStatus.BAD_REQUEST: None},
        )
        return True

    def _refresh(self, index: str) -> None:
        self._cluster.ask("POST", f"{index}/_refresh")

    # -- the documents of an hour

    def _index(self, offer: Offer, entry: LedgerEntry) -> tuple[Verdicts, int]:
        """Index all rows. Returns the verdicts, and the bytes that were sent."""
        documents = Documents(self.config.mapping, entry.hour, entry.build, entry.attempt)
        verdicts, size = self._send(offer, offer.frame, documents)
        if verdicts.refused:
            # Nearly always the searchable copy is refused: it has two equal keys, or a key without a name.
            # The text of the event is kept all the same.
            again = offer.frame.filter(one_of("row_uid", verdicts.refused))
            second, more = self._send(offer, again, replace(documents, has_data=False))
            verdicts.refused = second.refused
            verdicts.taken += second.taken
            size += more
        return verdicts, size

    def _send(self, offer: Offer, frame: Frame, documents: Documents) -> tuple[Verdicts, int]:
        index = self.config.index_of(offer.hour)
        found = Verdicts()
        size = 0

        def store(body: Body) -> tuple[Verdicts, int]:
            verdicts = self._cluster.store(index, body)
            crash_point("elasticsearch.after_request")
            return verdicts, len(body.lines)

        # Closed after an error too: DuckDB runs no other query while a result is open.
        with closing(documents.bodies(frame, self.config.request_bytes)) as bodies:
            for verdicts, sent in flow(bodies, store, self._cluster.limit, _size_of):
                if verdicts.overtaken:
                    raise HourBusyError(
                        f"another run is writing {offer.hour} to {self._where}: "
                        "let it finish, then try again"
                    )
                found.add(verdicts)
                size += sent
        return found, size

    def _remove_others(self, index: str, entry: LedgerEntry) -> int:
        """Delete the hour's documents of other deliveries; returns their number."""
        query = {
            "bool": {
                "filter": [{"term": {"obs.hour": entry.hour}}],
                "must_not": [{"term": {"obs.build": entry.build}}],
            }
        }
        # `proceed`: a document that changed since the search is counted afterwards.
        path = f"{index}/_delete_by_query?conflicts=proceed&refresh=true"
        answer = self._cluster.ask("POST", path, {"query": query})
        return int(answer["deleted"])

    def _is_same(self, held: LedgerEntry, offer: Offer) -> bool:
        """Whether the cluster holds the offered hour, and still has its documents."""
        same = held.version == asdict(offer.version) and held.content_hash == offer.content_hash
        return held.state == "held" and same and self._count(offer.hour) == held.rows

    def _count(self, hour: Hour) -> int:
        query = {"query": {"term": {"obs.hour": hour.key}}}
        path = f"{self.config.index_of(hour)}/_count"
        answer = self._cluster.ask(
            "POST", path, query, allowed={HTTPStatus.NOT_FOUND: {"count": 0}}
        )
        return int(answer["count"])

    def _pages(self, hour: Hour) -> Iterator[list[dict[str, str]]]:
        """The documents of an hour, in the order of their ``row_uid``."""
        original = original_path(self.config.mapping)
        question: dict[str, Any] = {
            "size": READ_DOCUMENTS,
            "query": {"term": {"obs.hour": hour.key}},
            "sort": ["obs.row_uid"],
            "_source": [original, "obs.row_uid"],
        }
        nothing: Any = {"hits": {"hits": []}}
        while True:
            answer = self._cluster.ask(
                "POST",
                f"{self.config.index_of(hour)}/_search",
                question,
                allowed={HTTPStatus.NOT_FOUND: nothing},
            )
            hits = answer["hits"]["hits"]
            if not hits:
                return
            yield [
                {
                    "row_uid": hit["_source"]["obs"]["row_uid"],
                    "event": _at(hit["_source"], original),
                }
                for hit in hits
            ]
            question["search_after"] = hits[-1]["sort"]

    def _hours_with_documents(self) -> Iterator[str]:
        """Keys of the hours that have a document."""
        sources = [{"hour": {"terms": {"field": "obs.hour"}}}]
        composite: dict[str, Any] = {"size": READ_HOURS, "sources": sources}
        while True:
            answer = self._cluster.ask(
                "POST",
                f"{self.config.index}/_search",
                {"size": 0, "aggs": {"hours": {"composite": composite}}},
                allowed={HTTPStatus.NOT_FOUND: None},
            )
            if answer is None:
                return
            found = answer["aggregations"]["hours"]
            for bucket in found["buckets"]:
                yield bucket["key"]["hour"]
            if not found["buckets"] or "after_key" not in found:
                return
            composite["after"] = found["after_key"]

    # -- the ledger

    def _entry(self, hour: Hour) -> tuple[LedgerEntry | None, str]:
        """The ledger's entry of an hour, and the condition under which it may be replaced."""
        path = f"{self.config.ledger_index}/_doc/{hour.stamp}"
        answer = self._cluster.ask("GET", path, allowed={HTTPStatus.NOT_FOUND: None})
        if answer is None:
            return None, "op_type=create"
        tag = f"if_seq_no={answer['_seq_no']}&if_primary_term={answer['_primary_term']}"
        return _entry_of(answer["_source"]), tag

    def _write_entry(self, entry: LedgerEntry, tag: str) -> str:
        """Write an entry if it still has the tag; returns its new tag.

        Raises:
            HourBusyError: another run has written the entry.
        """
        stamp = parse_hour(entry.hour).stamp
        path = f"{self.config.ledger_index}/_doc/{stamp}?refresh=wait_for&{tag}"
        answer = self._cluster.ask(
            "PUT", path, asdict(entry), allowed={HTTPStatus.CONFLICT: None}
        )
        if answer is None:
            raise HourBusyError(
                f"another run is writing {entry.hour} to {self._where}: let it finish, then try again"
            )
        return f"if_seq_no={answer['_seq_no']}&if_primary_term={answer['_primary_term']}"

    def _entries(self) -> Iterator[LedgerEntry]:
        question: dict[str, Any] = {"size": READ_HOURS, "sort": ["hour"]}
        path = f"{self.config.ledger_index}/_search"
        while True:
            answer = self._cluster.ask(
                "POST", path, question, allowed={HTTPStatus.NOT_FOUND: None}
            )
            hits = answer["hits"]["hits"] if answer else []
            if not hits:
                return
            for hit in hits:
                yield _entry_of(hit["_source"])
            question["search_after"] = hits[-1]["sort"]


def _size_of(body: Body) -> int:
    return len(body.lines)


def _entry_of(source: Mapping[str, Any]) -> LedgerEntry:
    return LedgerEntry(**{name: source[name] for name in LedgerEntry.__dataclass_fields__})


def _at(source: Any, path: str) -> str:
    for name in path.split("."):
        source = source[name]
    return str(source)


def _by_reason(refused: Mapping[str, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in refused.values():
        counts[reason] = counts.get(reason, 0) + 1
    return counts
