"""Kinds of destination, a row of `KINDS` each.

A row answers each question of the rest of the package about a kind: its configuration class, the
name and the description of its asset, the server that it needs, its constructor and its abilities.
To add a kind, write its module below ``destinations/`` and add a row to `KINDS`. No other code
compares the type of a destination.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import duckdb
from pydantic import Discriminator, GetCoreSchemaHandler, SecretStr, Tag
from pydantic_core import CoreSchema

from obs_assets import embedded
from obs_assets.alerts.rules import with_rule
from obs_assets.delivery.breaker import Breaker, Breakers
from obs_assets.delivery.outbox import WebhookAlerts
from obs_assets.destinations.appending import AppendingDestination, Sender
from obs_assets.destinations.base import Destination, DestinationConfig, Offer, Page, StoredPart
from obs_assets.destinations.cloudwatch import CloudWatchConfig, CloudWatchSender
from obs_assets.destinations.datadog import DatadogConfig, DatadogSender
from obs_assets.destinations.elasticsearch import ElasticsearchConfig, ElasticsearchDestination
from obs_assets.destinations.elasticsearch.documents import documents_page
from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination
from obs_assets.destinations.postgres.table import table_page
from obs_assets.destinations.s3 import S3Config, S3Destination
from obs_assets.destinations.s3.encode import archive_page, packed_size
from obs_assets.destinations.splunk import SplunkConfig, SplunkSender
from obs_assets.destinations.webhook import WebhookConfig
from obs_assets.embedded import EmbeddedServer
from obs_assets.errors import ConfigurationError, PermanentError
from obs_assets.events import Frame
from obs_assets.hours import Hour, utc_now
from obs_assets.settings import Settings

Size = tuple[int, int]
"""Number of rows, and bytes."""


@dataclass(frozen=True)
class Order:
    """The parts that a destination is made from.

    Attributes:
        config: the block of the pipeline file, an instance of the kind's config class.
        server: settings of the kind's server; None for a kind or a block that needs no server.
        settings: settings of the machine.
        ledger_name: name of the destination in ledgers that several pipelines share.
        client: client of a Dagster resource that reaches the server; None: the destination makes its
            own client.
        clock: gives the time, UTC.
    """

    config: Any
    server: Any
    settings: Settings
    ledger_name: str
    client: Any = None
    clock: Callable[[], datetime] = utc_now

    @property
    def breakers(self) -> Breakers:
        """The breakers of the data folder."""
        return Breakers(self.settings.data_dir / "breakers")

    def gate(self, url: str) -> Breaker:
        """The gate of a door of the destination."""
        return self.breakers.of_door(self.ledger_name, url)


def whole_events(config: DestinationConfig, offer: Offer) -> Size:
    """Rows of an offer, and the bytes of their events in UTF-8."""
    del config  # a kind that keeps all events needs no option
    return _size(offer.frame)


def _size(frame: Frame) -> Size:
    rows, size = frame.aggregate("count(*), coalesce(sum(strlen(event)), 0)").fetchall()[0]
    return int(rows), int(size)


@contextmanager
def read_back_whole(
    name: str, destination: Destination, hour: Hour, folder: Path
) -> Iterator[Iterator[StoredPart]]:
    """The hour as a single part, as the destination reads it back.

    Raises:
        PermanentError: the destination does not hold the hour.
    """
    del folder  # nothing is fetched into files
    if destination.holding(hour) is None:
        raise PermanentError(f"{name} holds no hour {hour}: nothing can be restored from it")

    def rows(connection: duckdb.DuckDBPyConnection) -> Frame:
        found = destination.read_back(connection, hour)
        return found.project("row_uid, event, strlen(event) AS length")

    yield iter([StoredPart(f"{name}/{hour.key}", rows)])


@dataclass(frozen=True)
class Kind:
    """A kind of destination.

    Attributes:
        name: value of ``type:`` in a pipeline file, for example ``postgres``.
        config: class of the options.
        asset_name: name of the asset of a block without a name.
        description: sentence on the asset's page.
        make: makes a destination from its parts.
        aliases: other values of ``type:`` that mean this kind.
        dagster_kinds: tags on the asset in the UI.
        server: the server that the kind needs; the embedded server is used where the environment
            names no other.
        needs_server: whether a block of this kind uses the server.
        missing: the environment variable without which destinations of this kind are off, for example
            ``ELASTICSEARCH_URL``; empty if it is set, or if the kind needs no variable.
        keeps_events: the destination holds single events and can be read back: ``obs scan`` reads
            it, ``obs verify`` compares its events, ``obs restore`` takes hours from it.
        takes_all: the destination holds each event that it is offered.
        takes_hours_by: ``replace``: an hour takes the place of its older version; ``append``: new
            events of an hour are added.
        is_archive: hours are restored from it unless another destination is named.
        address: the address that a breaker guards instead of the deliveries, for a kind that keeps an
            outbox; None for other kinds, and without an address.
        alerts: the destination judges alert rules and keeps dispatches, as `WebhookAlerts` does.
        has_tables: the destination keeps tables for ``obs postgres`` and the daily upkeep.
        in_order: hours are delivered singly, in their order.
        streams: the destination reads a large frame a single time, from begin to end.
        resource: prefix of the key of the Dagster resource that reaches the server; empty: there is
            no such resource.
        size: rows and bytes that the destination would hold of an offer, for ``obs diff``.
        page: table and columns for the catalogue.
        place: where a block keeps its hours, in words, for example ``the table public.events``. Two
            blocks with the same place would replace each other's hours, and are refused. Empty: hours
            of two blocks cannot meet.
        stored: the parts of an hour for ``obs restore``, fetched singly into a folder.
    """

    name: str
    config: type[DestinationConfig]
    asset_name: str
    description: str
    make: Callable[[Order], Destination]
    aliases: tuple[str, ...] = ()
    dagster_kinds: frozenset[str] = frozenset()
    server: EmbeddedServer | None = None
    needs_server: Callable[[Any], bool] = lambda _: True
    missing: Callable[[Settings], str] = lambda _: ""
    keeps_events: bool = True
    takes_all: bool = True
    takes_hours_by: Literal["replace", "append"] = "replace"
    is_archive: bool = False
    address: Callable[[Any, Settings], SecretStr | None] = lambda _, __: None
    alerts: bool = False
    has_tables: bool = False
    in_order: bool = False
    streams: bool = False
    resource: str = ""
    size: Callable[[Any, Offer], Size] = whole_events
    page: Callable[[Any], Page] = lambda _: Page()
    place: Callable[[Any], str] = lambda _: ""
    stored: Callable[[str, Any, Hour, Path], AbstractContextManager[Iterator[StoredPart]]] = (
        read_back_whole
    )

    def server_of(self, config: DestinationConfig) -> EmbeddedServer | None:
        """The server that a block needs, or None."""
        return self.server if self.needs_server(config) else None


def _make_postgres(order: Order) -> Destination:
    return PostgresDestination(order.config, order.server, clock=order.clock)


def _make_s3(order: Order) -> Destination:
    return S3Destination(order.config, order.server, order.client)


def _make_webhook(order: Order) -> Destination:
    return WebhookAlerts(
        order.ledger_name,
        order.config,
        order.server,
        order.settings.webhook,
        order.breakers,
        clock=order.clock,
    )


def _webhook_address(config: WebhookConfig, settings: Settings) -> SecretStr | None:
    return config.url or settings.webhook.url


def _make_elasticsearch(order: Order) -> Destination:
    settings = order.settings.elasticsearch
    if settings is None:
        raise ConfigurationError(f"{order.ledger_name} is off: ELASTICSEARCH_URL is not set")
    return ElasticsearchDestination(order.config, settings, order.clock, order.gate)


def _missing_elasticsearch(settings: Settings) -> str:
    return "" if settings.elasticsearch else "ELASTICSEARCH_URL"


def _make_splunk(order: Order) -> Destination:
    settings = order.settings.splunk
    if settings is None:
        raise ConfigurationError(f"{order.ledger_name} is off: SPLUNK_HEC_URL is not set")
    return _appending(order, SplunkSender(order.config, settings, order.gate))


def _make_datadog(order: Order) -> Destination:
    settings = order.settings.datadog
    if settings is None:
        raise ConfigurationError(f"{order.ledger_name} is off: DD_API_KEY is not set")
    return _appending(order, DatadogSender(order.config, settings, order.gate))


def _make_cloudwatch(order: Order) -> Destination:
    sender = CloudWatchSender(order.config, order.settings.aws_region)
    report = None
    if order.config.metrics_namespace:
        report = functools.partial(sender.send_counts, order.ledger_name)
    return _appending(order, sender, report)


def _appending(
    order: Order, sender: Sender, report: Callable[[Hour, Frame], None] | None = None
) -> Destination:
    return AppendingDestination(
        order.ledger_name, order.config, order.server, sender, order.clock, report=report
    )


def _table_of(config: PostgresConfig) -> str:
    """For example ``the table public.events in obs of db.example.com``."""
    table = f"the table {config.schema_name}.{config.table_name}"
    named = [str(part) for part in (config.database, config.host, config.port) if part]
    if not named:
        return table
    return f"{table} in {' of '.join(named)}"


def _prefix_of(config: S3Config) -> str:
    """For example ``the prefix cortex-events in my-event-archive``."""
    prefix = f"the prefix {config.prefix}"
    if not config.bucket:
        return prefix
    return f"{prefix} in {config.bucket}"


def _archived_size(config: S3Config, offer: Offer) -> Size:
    return offer.rows, packed_size(offer.frame, offer.hour, config)


def _matched_size(config: WebhookConfig, offer: Offer) -> Size:
    return _size(with_rule(offer.frame, config.rules).filter("rule IS NOT NULL"))


def _archived_parts(
    name: str, destination: S3Destination, hour: Hour, folder: Path
) -> AbstractContextManager[Iterator[StoredPart]]:
    del name  # parts are named by the URLs of their objects
    return destination.archived(hour, folder)


KINDS: tuple[Kind, ...] = (
    Kind(
        name="postgres",
        aliases=("postgresql",),
        config=PostgresConfig,
        asset_name="postgres_events",
        description=(
            "The hour's rows in PostgreSQL, replaced in one transaction together with their "
            "ledger row."
        ),
        dagster_kinds=frozenset({"postgres"}),
        server=embedded.POSTGRES,
        make=_make_postgres,
        has_tables=True,
        page=table_page,
        place=_table_of,
    ),
    Kind(
        name="s3",
        config=S3Config,
        asset_name="s3_archive",
        description=(
            "The hour's JSON lines in S3, the same key and bytes at every rebuild, published by a "
            "manifest."
        ),
        dagster_kinds=frozenset({"s3", "json"}),
        server=embedded.S3,
        # An archive in a local folder needs no S3 server.
        needs_server=lambda config: not config.is_local,
        make=_make_s3,
        is_archive=True,
        streams=True,
        resource="s3",
        size=_archived_size,
        page=archive_page,
        place=_prefix_of,
        stored=_archived_parts,
    ),
    Kind(
        name="elasticsearch",
        aliases=("opensearch",),
        config=ElasticsearchConfig,
        asset_name="elasticsearch_events",
        description=(
            "The hour's documents in Elasticsearch or OpenSearch; they replace those of its older version."
        ),
        dagster_kinds=frozenset({"elasticsearch", "json"}),
        make=_make_elasticsearch,
        missing=_missing_elasticsearch,
        page=documents_page,
        place=lambda config: f"the index {config.index}",
    ),
    Kind(
        name="splunk",
        config=SplunkConfig,
        asset_name="splunk_events",
        description="The hour's events in Splunk, each sent once; a ledger knows which rows were answered.",
        dagster_kinds=frozenset({"splunk"}),
        server=embedded.POSTGRES,  # for the ledger
        make=_make_splunk,
        missing=lambda settings: "" if settings.splunk else "SPLUNK_HEC_URL",
        keeps_events=False,
        takes_hours_by="append",
    ),
    Kind(
        name="datadog",
        config=DatadogConfig,
        asset_name="datadog_logs",
        description="The hour's events as logs in Datadog, each sent once; a ledger knows which rows were answered.",
        dagster_kinds=frozenset({"datadog"}),
        server=embedded.POSTGRES,
        make=_make_datadog,
        missing=lambda settings: "" if settings.datadog else "DD_API_KEY",
        keeps_events=False,
        takes_hours_by="append",
    ),
    Kind(
        name="cloudwatch",
        config=CloudWatchConfig,
        asset_name="cloudwatch_logs",
        description=(
            "The hour's events in a stream of CloudWatch Logs, each sent once; a ledger knows which rows were answered."
        ),
        dagster_kinds=frozenset({"aws"}),
        server=embedded.POSTGRES,
        make=_make_cloudwatch,
        missing=lambda settings: "" if settings.aws_region else "AWS_REGION",
        keeps_events=False,
        takes_hours_by="append",
    ),
    Kind(
        name="webhook",
        config=WebhookConfig,
        asset_name="webhook_alerts",
        description=(
            "Events that match an alert rule, sent to a webhook in dispatches, each once and with "
            "a stable id."
        ),
        dagster_kinds=frozenset({"webhook"}),
        server=embedded.POSTGRES,  # for the outbox
        make=_make_webhook,
        # A body can hold many events, and its format is the receiver's.
        keeps_events=False,
        takes_all=False,
        takes_hours_by="append",
        address=_webhook_address,
        alerts=True,
        # The state of an alert follows from the hours before.
        in_order=True,
        size=_matched_size,
    ),
)


def kind_of(config: DestinationConfig) -> Kind:
    """The row of a block.

    Raises:
        LookupError: the class of the block is in no row.
    """
    for kind in KINDS:
        if isinstance(config, kind.config):
            return kind
    raise LookupError(f"no row of KINDS has the config class {type(config).__name__}")


def type_names() -> dict[str, str]:
    """Each value that ``type:`` may have → name of its kind."""
    names: dict[str, str] = {}
    for kind in KINDS:
        names |= dict.fromkeys((kind.name, *kind.aliases), kind.name)
    return names


def asset_name(config: DestinationConfig) -> str:
    """The name of a destination's asset: the block's ``name``, else the default of its kind."""
    return config.name or kind_of(config).asset_name


def servers() -> list[EmbeddedServer]:
    """The servers that kinds of destination need, without repetition."""
    found = [kind.server for kind in KINDS if kind.server]
    return list(dict.fromkeys(found))


class _OfAnyKind:
    """Makes pydantic read a destination as the config class that its ``type:`` names."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source
        tagged: list[Any] = [Annotated[kind.config, Tag(kind.name)] for kind in KINDS]
        # Built at run time from the rows, so that a new kind needs no change here.
        union = functools.reduce(operator.or_, tagged)
        return handler.generate_schema(Annotated[union, Discriminator(_type)])


def _type(value: Any) -> str:
    """Name of the kind of a block; an unknown ``type:`` as it stands, for pydantic's error."""
    # A block is a mapping in a pipeline file, and a model where Python code makes it.
    is_mapping = isinstance(value, Mapping)
    written = getattr(value, "type", None)
    if is_mapping:
        written = value.get("type")
    return type_names().get(str(written), str(written))


AnyDestination = Annotated[DestinationConfig, _OfAnyKind]
"""A destination's block in a pipeline's configuration; its class depends on ``type:``."""
