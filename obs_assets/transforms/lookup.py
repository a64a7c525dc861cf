"""Fields from a table of the user, or from a MaxMind database, found by a value of the event.

Both files are read when the configuration is loaded, and their hash is part of the configuration:
changed content is a changed configuration. Each distinct value is looked up once, and the order of
the events stays, which a join would lose.
"""

import csv
import functools
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import duckdb
import duckdb.func
from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    PrivateAttr,
    computed_field,
    field_validator,
    model_validator,
)

from obs_assets.config import Json

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,99}"

FieldName = Annotated[str, Field(pattern=rf"^{_NAME}$")]
"""Name of a field that is added to events."""

FieldPath = Annotated[str, Field(pattern=rf"^{_NAME}(\.{_NAME})*$")]
"""Path of a value in an event: names with dots between them."""

ADDRESSES_REMEMBERED = 1 << 16
"""Distinct addresses whose records are kept in memory."""

_numbers = itertools.count()
"""Numbers for the names of SQL functions, which must differ within a connection."""


class Lookup(BaseModel, frozen=True, extra="forbid"):
    """A table in which a value of the event is looked up, for example service → team.

    All values of the table are text. An empty cell counts as missing.

    Attributes:
        table: path of a CSV file with a header, or of a Parquet file, relative to the working
            directory. The file is read when the configuration is loaded.
        key: path of the value in the event: names with dots between them.
        column: column of the table that holds the value; by default the last name of ``key``.
        fields: new field → column of the table, or a list of columns; by default all other
            columns.
        default: new field → value, for events whose value the table does not hold.
    """

    table: str = Field(examples=["services.csv"])
    key: FieldPath = Field(examples=["service.name"])
    column: str = Field("", examples=["service"])
    fields: dict[FieldName, str] = Field(default_factory=dict, examples=[{"team": "owner"}])
    default: dict[FieldName, Json] = Field(default_factory=dict, examples=[{"team": "unknown"}])
    _rows: dict[str, int] = PrivateAttr(default_factory=dict)
    _cells: Any = PrivateAttr(None)
    _names: tuple[str, ...] = PrivateAttr(())
    _digest: str = PrivateAttr("")

    @field_validator("fields", mode="before")
    @classmethod
    def _columns_named_alike(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return {name: name for name in value}
        return value

    @model_validator(mode="after")
    def _read(self) -> "Lookup":
        content = _content(self.table)
        columns = _columns(content, self.table)
        by = self.column or self.key.rpartition(".")[2]
        fields = self.fields or {name: name for name in columns if name != by}
        for column in (by, *fields.values()):
            if column not in columns:
                raise ValueError(
                    f"{self.table} has no column {column!r}; there are {', '.join(columns)}"
                )
        if unknown := sorted(set(self.default) - set(fields)):
            raise ValueError(
                f"default: {', '.join(unknown)} is none of the fields {', '.join(fields)}"
            )
        self._digest = hashlib.sha256(content).hexdigest()
        self._names = tuple(fields)
        self._rows.update(_numbered(columns[by], self.table, by))
        self._cells = _lists([columns[column] for column in fields.values()])
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sha256(self) -> str:
        """Hash of the table, part of the configuration."""
        return self._digest

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the added fields."""
        return self._names

    def find(self, values: "pa.Array") -> "pa.Array":
        """For each value, a list with the JSON text of each field; NULL if the table lacks the value."""
        return self._cells.take(_row_numbers(values, self._rows.get))


class GeoIp(BaseModel, frozen=True, extra="forbid"):
    """A MaxMind database in which an IP address of the event is looked up.

    Enrichment runs before redaction, which removes the address itself. An address that the database does not hold,
    such as a private address, adds nothing.

    Attributes:
        database: path of an ``.mmdb`` file, relative to the working directory. The file is read
            when the configuration is loaded.
        key: path of the address in the event: names with dots between them.
        fields: new field → path in the database's record: names with dots between them, numbers
            for elements of lists.
    """

    database: str = Field(examples=["GeoLite2-City.mmdb"])
    key: FieldPath = Field(examples=["client.ip"])
    fields: dict[FieldName, str] = Field(
        default_factory=lambda: {
            "geo_country": "country.iso_code",
            "geo_city": "city.names.en",
        },
        min_length=1,
    )
    _reader: Any = PrivateAttr(None)
    _digest: str = PrivateAttr("")

    @model_validator(mode="after")
    def _open(self) -> "GeoIp":
        try:
            import maxminddb
        except ImportError:
            raise ValueError(
                "geoip needs the package maxminddb: pip install 'obs_assets[geoip]'"
            ) from None
        # The content is read once, so that database and hash belong together.
        content = _content(self.database)
        try:
            self._reader = maxminddb.open_database(io.BytesIO(content), maxminddb.MODE_FD)
        except (maxminddb.InvalidDatabaseError, ValueError):
            raise ValueError(f"{self.database} is no MaxMind database") from None
        self._digest = hashlib.sha256(content).hexdigest()
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sha256(self) -> str:
        """Hash of the database, part of the configuration."""
        return self._digest

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the added fields."""
        return tuple(self.fields)

    @property
    def default(self) -> Mapping[str, JsonValue]:
        """Values for addresses that the database lacks: none."""
        return {}

    def find(self, values: "pa.Array") -> "pa.Array":
        """For each address, a list with the JSON text of each field; NULL if the database lacks the address."""
        import pyarrow as pa

        distinct = values.dictionary_encode()
        found = [self._located(address) for address in distinct.dictionary.to_pylist()]
        return pa.array(found, pa.list_(pa.string())).take(distinct.indices)

    @functools.cached_property
    def _located(self) -> "functools._lru_cache_wrapper[list[str | None]]":
        return functools.lru_cache(ADDRESSES_REMEMBERED)(self._locate)

    def _locate(self, address: str) -> list[str | None]:
        try:
            record = self._reader.get(address)
        except ValueError:
            # The value is not an address.
            record = None
        return [_json(_at(record, path)) for path in self.fields.values()]


def register(connection: duckdb.DuckDBPyConnection, source: Lookup | GeoIp) -> str:
    """Register a table as an SQL function of a connection, from a text to a list of JSON texts.

    Returns:
        the name of the function.
    """
    name = f"look_up_{next(_numbers)}"
    connection.create_function(
        name,
        lambda values: source.find(values.combine_chunks()),
        ["VARCHAR"],
        "VARCHAR[]",
        type=duckdb.func.ARROW,
        null_handling=duckdb.func.SPECIAL,
    )
    return name


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read the file {path}: {error.strerror}") from None


def _columns(content: bytes, path: str) -> dict[str, list[str | None]]:
    """The columns of a table, by name, as text."""
    # The content decides, not the name: every Parquet file begins with these bytes.
    if content.startswith(b"PAR1"):
        return _columns_of_parquet(content, path)
    return _columns_of_csv(content, path)


def _columns_of_csv(content: bytes, path: str) -> dict[str, list[str | None]]:
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig")), strict=True)
        header, *rows = [row for row in lines if row]
    except (UnicodeDecodeError, csv.Error, ValueError):
        raise ValueError(f"{path} is no CSV file in UTF-8 with a header") from None
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"{path}, row {number}: {len(row)} cells under {len(header)} columns"
            )
    _check_header(header, path)
    columns: dict[str, list[str | None]] = {}
    for index, name in enumerate(header):
        # An empty cell counts as missing.
        columns[name] = [row[index] or None for row in rows]
    return columns


def _columns_of_parquet(content: bytes, path: str) -> dict[str, list[str | None]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(io.BytesIO(content))
        columns: dict[str, list[str | None]] = {}
        for name in table.column_names:
            cells = table[name].cast(pa.string()).to_pylist()
            columns[name] = [cell or None for cell in cells]
    except (pa.ArrowException, OSError):
        raise ValueError(
            f"{path} is no Parquet file whose columns can be read as text"
        ) from None
    _check_header(table.column_names, path)
    return columns


def _check_header(names: list[str], path: str) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: two columns have the same name")


def _numbered(keys: Iterable[str | None], path: str, column: str) -> dict[str, int]:
    """Key → number of its row, from 0.

    Raises:
        ValueError: a key is missing or repeated. The message repeats no key: keys may be personal.
    """
    rows: dict[str, int] = {}
    for number, key in enumerate(keys):
        if key is None:
            raise ValueError(f"{path}: row {number + 1} below the header has no {column}")
        if rows.setdefault(key, number) != number:
            raise ValueError(
                f"{path}: rows {rows[key] + 1} and {number + 1} below the header "
                f"have the same {column}"
            )
    return rows


def _lists(columns: list[list[str | None]]) -> "pa.Array":
    """For each row of a table, the list of its cells as JSON texts."""
    import pyarrow as pa

    rows: list[list[str | None]] = []
    for row in zip(*columns, strict=True):
        rows.append([_json(cell) for cell in row])
    return pa.array(rows, pa.list_(pa.string()))


def _row_numbers(values: "pa.Array", number_of: Callable[[str], int | None]) -> "pa.Array":
    """The row number of each value, NULL without a row; each distinct value is looked up once."""
    import pyarrow as pa

    distinct = values.dictionary_encode()
    numbers = [number_of(value) for value in distinct.dictionary.to_pylist()]
    return pa.array(numbers, pa.int64()).take(distinct.indices)


def _json(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _at(record: Any, path: str) -> Any:
    for segment in path.split("."):
        if isinstance(record, dict):
            record = record.get(segment)
        elif isinstance(record, list) and segment.isdecimal() and int(segment) < len(record):
            record = record[int(segment)]
        else:
            return None
    return record
