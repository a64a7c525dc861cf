"""Fields of one's own: static ones, from tables, from databases of addresses."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from obs_assets.errors import ConfigurationError
from obs_assets.events import with_columns
from obs_assets.hourly import pipeline
from obs_assets.storage import engine
from obs_assets.storage import frames as store
from obs_assets.transforms.enrich import EnrichConfig, enrich
from obs_assets.transforms.lookup import GeoIp, Lookup
from obs_assets_tests.frames import frame_of

Event = dict[str, Any]

TABLE = 'service,team,tier\napi,red,1\nweb,"blue, ""navy""",\n01,zero,0\n'


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.connect(tmp_path_factory.mktemp("spill")) as connection:
        yield connection


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "services.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real MaxMind database of two networks."""
    writer = MMDBWriter(
        ip_version=6, ipv4_compatible=True, database_type="Test-City", languages=["en"]
    )
    berlin = {
        "country": {"iso_code": "DE"},
        "city": {"names": {"en": "Berlin"}},
        "subdivisions": [{"iso_code": "BE"}],
    }
    writer.insert_network(IPSet(["81.2.69.0/24"]), berlin)
    writer.insert_network(
        IPSet(["2a02:100::/32"]),
        {"country": {"iso_code": "FR"}, "location": {"latitude": 48.5}},
    )
    path = tmp_path_factory.mktemp("geo") / "city.mmdb"
    writer.to_db_file(str(path))
    return path


def enriched(
    connection: duckdb.DuckDBPyConnection, told: list[Event], **options: Any
) -> list[Event]:
    frame = frame_of(connection, told).project(
        "* EXCLUDE (weight), '{}' AS collector, 'a' AS event_file"
    )
    config = EnrichConfig(enrichments=(), **options)
    rows = enrich(connection, frame, config).order("file_offset").project("event").fetchall()
    return [
        {k: v for k, v in json.loads(text).items() if k != "_enrichment"} for (text,) in rows
    ]


def test_static_fields_are_added_where_they_are_missing(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Any JSON; what an event has stays, a null too."""
    fields = {"region": "eu-'1'", "zone": {"n": [1, None]}, "level": "info"}
    assert enriched(
        connection, [{"a": 1}, {"region": None, "level": "error"}], static_fields=fields
    ) == [
        {"a": 1, **fields},
        {"region": None, "level": "error", "zone": fields["zone"]},
    ]


@pytest.mark.slow
def test_promoted_columns_follow_fields_of_ones_own(
    connection: duckdb.DuckDBPyConnection, table: Path
) -> None:
    """Every column says what it would if it were computed from the event anew."""
    told = [{"service": "api"}, {"service": "?", "worker_type": "w"}]
    frame = frame_of(connection, told).project(
        "* EXCLUDE (weight), '{}' AS collector, 'a' AS event_file"
    )
    lookup = Lookup(table=str(table), key="service", fields={"worker_type": "team"})
    config = EnrichConfig(
        enrichments=("all",), static_fields={"status": "failed", "cost": 2}, lookups=(lookup,)
    )
    rows = enrich(connection, frame, config)
    assert rows.project("worker_type, status, cost_usd").fetchall()[0][:2] == ("red", "failed")
    assert rows.fetchall() == with_columns(rows).fetchall()


def test_a_table_is_looked_up_by_a_value_of_the_event(
    connection: duckdb.DuckDBPyConnection, table: Path
) -> None:
    """Wherever the event has it; cells are text; the default is for those that the table does not have."""
    lookup = {
        "table": str(table),
        "key": "ctx.service",
        "column": "service",
        "default": {"team": "nobody"},
    }
    told: list[Event] = [
        *({"ctx": {"service": value}} for value in ("api", "web", "01", 1, "API", None)),
        {"team": "own", "ctx": {"service": "api"}},
        {},
    ]
    found = [
        {k: v for k, v in event.items() if k != "ctx"}
        for event in enriched(connection, told, lookups=[lookup])
    ]
    nobody = {"team": "nobody"}
    assert found == [
        {"team": "red", "tier": "1"},
        {"team": 'blue, "navy"'},
        {"team": "zero", "tier": "0"},
        *[nobody] * 3,
        {"team": "own", "tier": "1"},
        nobody,
    ]


@pytest.mark.slow
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(st.text(min_size=1, max_size=4), st.text(max_size=4), max_size=8),
    st.lists(st.text(max_size=4)),
)
def test_a_lookup_is_what_a_dictionary_says(
    connection: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    rows: dict[str, str],
    asked: list[str],
) -> None:
    """Against the slow and obvious way, in the order of the events; Parquet as CSV."""
    path = tmp_path / "table.parquet"
    pd.DataFrame({"k": list(rows), "v": list(rows.values())}, dtype="string").to_parquet(path)
    asked = [*asked, *rows]
    found = enriched(
        connection, [{"k": key} for key in asked], lookups=[{"table": str(path), "key": "k"}]
    )
    assert found == [{"k": key} | ({"v": rows[key]} if rows.get(key) else {}) for key in asked]


@pytest.mark.slow
def test_order_is_kept_in_an_hour_of_many_events(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """By two threads, with a table of fifty thousand rows."""
    (tmp_path / "big.csv").write_text("k,v\n" + "".join(f"{n},v{n}\n" for n in range(50_000)))
    events = connection.sql(
        "SELECT printf('%08d', i) AS row_uid, TIMESTAMPTZ '2025-12-04 10:00:00Z' AS event_time, 'f' AS file_id, i AS "
        "file_offset, TIMESTAMPTZ '2025-12-04 11:00:00Z' AS landed_at, '{\"k\":' || (i * 7919) % 60000 || '}' AS event "
        "FROM range(200000) t(i)"
    )
    frame = with_columns(events).project("*, '{}' AS collector, 'a' AS event_file")
    config = EnrichConfig(
        enrichments=(), lookups=(Lookup(table=str(tmp_path / "big.csv"), key="k"),)
    )
    store.write_parquet(enrich(connection, frame, config), tmp_path / "out.parquet")
    written = connection.read_parquet(str(tmp_path / "out.parquet"))
    assert written.project("row_uid").fetchall() == events.project("row_uid").fetchall()
    wrong = written.filter(
        "coalesce(event->>'v', '') <> CASE WHEN (event->>'k')::INT < 50000 THEN 'v' || (event->>'k') ELSE '' END"
    )
    assert wrong.fetchall() == []


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (TABLE, {"column": "svc"}, "has no column 'svc'; there are service, team, tier"),
        (TABLE, {"fields": ["owner"]}, "has no column 'owner'"),
        (TABLE, {"default": {"owner": 1}}, "default: owner is none of the fields team, tier"),
        (
            "service,team\na,1\nb,2\na,3\n",
            {},
            "rows 1 and 3 below the header have the same service",
        ),
        ("service,team\na,1\n,2\n", {}, "row 2 below the header has no service"),
        ("service,team\na,1,2\n", {}, "row 2: 3 cells under 2 columns"),
        ("service,service\na,1\n", {}, "two columns have the same name"),
        (b"\xff\xfe", {}, "is no CSV file in UTF-8"),
        (b"PAR1 and no more", {}, "is no Parquet file"),
        (None, {}, "cannot read the file .*: No such file"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_at_start(
    tmp_path: Path, content: str | bytes | None, options: Event, said: str
) -> None:
    """With what is wrong, where; keys are not repeated, they may be personal."""
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigurationError, match=f"lookups.0.*{said}"):
        pipeline.parse(
            {"enrich": {"lookups": [{"table": str(path), "key": "service", **options}]}}
        )


def test_a_table_is_part_of_the_version(tmp_path: Path) -> None:
    """Another content is another configuration; the same content elsewhere differs by its path alone."""
    path = tmp_path / "t.csv"
    versions = []
    for content in (TABLE, TABLE + "new,x,1\n", TABLE):
        path.write_text(content)
        config = pipeline.parse(
            {"enrich": {"lookups": [{"table": str(path), "key": "service"}]}}
        )
        versions.append(config.version("enriched_events"))
    assert versions[0] == versions[2] != versions[1]


def test_addresses_are_located(connection: duckdb.DuckDBPyConnection, database: Path) -> None:
    """IPv4 and IPv6; private ones, unknown ones and what is no address add nothing; lists are counted from 0."""
    addresses = [
        "81.2.69.160",
        "2a02:100::1",
        "10.0.0.1",
        "8.8.8.8",
        "no address",
        None,
        "81.2.69.160",
    ]
    geoip = {"database": str(database), "key": "client.ip"}
    told = [{"client": {"ip": address}} for address in addresses]
    found = [
        {k: v for k, v in event.items() if k != "client"}
        for event in enriched(connection, told, geoip=[geoip])
    ]
    berlin = {"geo_country": "DE", "geo_city": "Berlin"}
    assert found == [berlin, {"geo_country": "FR"}, {}, {}, {}, {}, berlin]
    fields = {
        "where": "location",
        "state": "subdivisions.0.iso_code",
        "none": "subdivisions.7.iso_code",
    }
    (first, second, *_) = enriched(connection, told, geoip=[{**geoip, "fields": fields}])
    assert (first["state"], second["where"], "none" in first) == (
        "BE",
        {"latitude": 48.5},
        False,
    )


def test_an_address_is_looked_up_once(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses repeat: the database is asked by distinct address, not by event."""
    import pyarrow as pa

    geoip = GeoIp(database=str(database), key="ip")
    asked: list[str] = []

    class Counting:
        def get(self, address: str) -> None:
            asked.append(address)

    geoip._reader = Counting()
    for _ in range(3):
        assert (
            len(geoip.find(pa.array(["81.2.69.1", "81.2.69.2", "81.2.69.1", None] * 500)))
            == 2_000
        )
    assert asked == ["81.2.69.1", "81.2.69.2"]


def test_a_database_that_cannot_be_used_is_refused_at_start(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no database, it is not there, or the package that reads it is not."""
    (tmp_path / "x.mmdb").write_bytes(b"nothing of the kind")
    for path, said in (
        (tmp_path / "x.mmdb", "is no MaxMind database"),
        (tmp_path / "y.mmdb", "No such file"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            pipeline.parse({"enrich": {"geoip": [{"database": str(path), "key": "ip"}]}})
    monkeypatch.setitem(sys.modules, "maxminddb", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'obs_assets\[geoip\]'"):
        pipeline.parse({"enrich": {"geoip": [{"database": str(database), "key": "ip"}]}})


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"static_fields": {"hostname": "x"}}, "the field hostname is added twice"),
        ({"static_fields": {"_redaction": 1}}, "the field _redaction is written by the stages"),
        ({"static_fields": {"a b": 1}}, "static_fields"),
        (
            {"static_fields": {"team": 1}, "lookups": [{"key": "service"}]},
            "the field team is added twice",
        ),
    ],
)
def test_two_values_for_a_field_are_refused(table: Path, block: Event, said: str) -> None:
    """A JSON object has a key once."""
    block["lookups"] = [{"table": str(table), **lookup} for lookup in block.get("lookups", ())]
    with pytest.raises(ConfigurationError, match=said):
        pipeline.parse({"enrich": block})
