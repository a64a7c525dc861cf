"""Where an event's time is found, and what it may be."""

import json
from datetime import UTC, datetime, timedelta, timezone

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_assets.sources.times import (
    EVENT_TIME,
    MAX_AHEAD,
    TIME_FIELDS,
    TIME_PATHS,
    TIME_REASON,
    careful_time_text,
    is_possible,
    names_of_times,
    other_paths,
)

LANDED_AT = datetime(2031, 5, 6, 12, 0, 0, 500, tzinfo=UTC)
FIRST_HOUR = datetime(2020, 1, 1, tzinfo=UTC)

_SQL = f"""
SELECT event_time, {TIME_REASON} FROM (SELECT *, {EVENT_TIME} AS event_time
FROM (SELECT *, TIME_TEXT AS time_text
FROM (SELECT $line AS line, $landed_at::TIMESTAMPTZ AS landed_at, $first_hour::TIMESTAMPTZ AS first_hour)))
"""

many = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def judge(
    connection: duckdb.DuckDBPyConnection,
    event: dict[str, object] | str,
    first_hour: datetime = FIRST_HOUR,
) -> datetime | str:
    """The time of an event landed at `LANDED_AT`, or why it has none."""
    line = event if isinstance(event, str) else json.dumps(event)
    parameters = {"line": line, "landed_at": LANDED_AT, "first_hour": first_hour}
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE judged AS SELECT $1::VARCHAR AS line", [line]
    )
    others = other_paths(connection, "judged", TIME_PATHS)
    sql = _SQL.replace("TIME_TEXT", careful_time_text(TIME_PATHS, others))
    ((moment, reason),) = connection.execute(sql, parameters).fetchall()
    return str(reason) if reason else moment.astimezone(UTC)


def at(path: str, value: object) -> dict[str, object]:
    """An event with a value at a path."""
    outer, _, inner = path.partition(".")
    return {outer: at(inner, value) if inner else value}


NINE = datetime(2031, 5, 6, 9, 0, tzinfo=UTC)
TEN = NINE + timedelta(hours=1)
NINE_AND_5 = NINE + timedelta(microseconds=5)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2031-05-06T09:00:00Z", NINE),
        ("2031-05-06T09:00:00+00:00", NINE),
        ("2031-05-06T09:00:00-00:00", NINE),
        ("2031-05-06T03:00:00-0600", NINE),
        ("2031-05-06T03:00:00-06", NINE),
        ("2031-05-06T14:30:00+05:30", NINE),
        ("2031-05-06T23:00:00+14:00", NINE),
        ("2031-05-06 09:00:00", NINE),
        ("2031-05-06 09:00:00Z", NINE),
        ("2031-05-06 09:00:00 UTC", NINE),
        ("2031-05-06 09:00:00 GMT", NINE),
        ("2031-05-06 10:00:00 +0100", NINE),
        ("2031-05-06 10:00:00,25 +0100", NINE + timedelta(milliseconds=250)),
        ("2031-05-06T09:00:00", NINE),
        ("2031-05-06T09:00", NINE),
        ("2031-05-06t09:00:00z", NINE),
        (" 2031-05-06T09:00:00Z\n", NINE),
        ("2031-05-06", NINE.replace(hour=0)),
        ("2031-05-05T24:00:00Z", NINE.replace(hour=0)),
        ("2031-05-06T09:00:00.5Z", NINE + timedelta(milliseconds=500)),
        ("2031-05-06T09:00:00.123456789Z", NINE + timedelta(microseconds=123456)),
        ("2031-05-06T08:59:59.999999999Z", NINE - timedelta(microseconds=1)),
        ("2031-05-06T08:59:59,9999999999999+00:00", NINE - timedelta(microseconds=1)),
        ("2031-05-06T10:00:00+01:00[Europe/Berlin]", NINE),
        ("2031-05-06T09:00:00Z[UTC]", NINE),
        ("2031-05-06T09:00:00Z[Etc/UTC][u-ca=iso8601]", NINE),
        ("2031-05-06T05:00-04:00[America/New_York]", NINE),
        ("2031-05-06 09:00:00.1 +0000 UTC m=+0.5", NINE + timedelta(milliseconds=100)),
        ("2031-05-06 11:00:00.123456789 +0200 CEST", NINE + timedelta(microseconds=123456)),
        ("2031-05-06 18:30:00 +0930 ACST m=+12.000000001", NINE),
        ("2031-05-06 12:00:00 +0300 +03", NINE),
        ("2031-05-06 09:00:00 UTC m=+3.1", NINE),
        ("20310506T100000+0100", NINE),
        ("20310506T090000.250", NINE + timedelta(milliseconds=250)),
        ("2031/05/06 09:00:00.5", NINE + timedelta(milliseconds=500)),
        ("[06/May/2031:10:00:00.5 +0100]", NINE + timedelta(milliseconds=500)),
        ("Tue, 06 May 2031 09:00:00 +0000 (UTC)", NINE),
        ("Tuesday, 06-May-31 09:00:00 GMT", NINE),
        ("Tue May  6 09:00:00 2031", NINE),
        ("Tue May  6 09:00:00 UTC 2031", NINE),
        ("Tue May 06 14:30:00 +0530 2031", NINE),
        ("Tue May 06 2031 11:00:00 GMT+0200 (Central European Summer Time)", NINE),
        ("May 6, 2031, 9:00:00 AM", NINE),
        ("May 6, 2031, 9:00:00 AM UTC", NINE),
        ("May 6, 2031 @ 09:00:00.000 GMT", NINE),
        ("May 6, 2031 @ 09:00:00.000", NINE),
        ("May  6 2031 09:00:00", NINE),
        ("May 6 2031 09:00:00.25 UTC", NINE + timedelta(milliseconds=250)),
        ("Tuesday, May 6, 2031 9:00:00 AM", NINE),
        ("06-May-2031 09:00:00.250", NINE + timedelta(milliseconds=250)),
        ("06/May/2031 09:00:00", NINE),
        ("2031 May  6 09:00:00", NINE),
        ("2031-05-06-09-00-00:250", NINE + timedelta(milliseconds=250)),
        ("2031-05-06 09:00:00:250", NINE + timedelta(milliseconds=250)),
        ("2031/05/06-09:00:00.000005", NINE_AND_5),
        ("2031.05.06_10:00:00 +0100", NINE),
        ("2031-5-6 9:00:00", NINE),
        ("2031-05-06 09.00.00", NINE),
        ("2031-05-06 09:00:00 PM", NINE + timedelta(hours=12)),
        ("May 6, 2031, 12:00:00 AM", NINE.replace(hour=0)),
        ("2031-05-06T11:00:00+02:00 Europe/Berlin", NINE),
        ("2031-05-06T11:00:00+02:00 (CEST)", NINE),
        ("1.935824400E9", datetime.fromtimestamp(1935824400, UTC)),
        ("1.9358244001234e+12", datetime.fromtimestamp(1935824400.1234, UTC)),
    ],
)
def test_iso_times(
    connection: duckdb.DuckDBPyConnection, written: str, moment: datetime
) -> None:
    """ISO 8601 as programs write it is that moment, floored to microseconds; without an offset it is UTC."""
    assert judge(connection, {"time": written}) == moment


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(
    ("number", "micros"),
    [
        (1_935_824_400, 0),
        (1_935_824_400_000, 0),
        (1_935_824_400_123, 123_000),
        (1_935_824_400_123_456, 123_456),
        (1_935_824_400_123_456_789, 123_456),
        (1_935_824_400_123_456_999, 123_456),
        (1_935_824_399_999_999_999, -1),
        (1_935_824_400.25, 250_000),
        (1_935_824_400.123456, 123_456),
        (1_935_824_400_123.5, 123_500),
    ],
)
def test_epochs(
    connection: duckdb.DuckDBPyConnection, number: float, micros: int, as_text: bool
) -> None:
    """Seconds, milliseconds, microseconds and nanoseconds are told by magnitude, as number and as text, and floored."""
    assert judge(connection, {"time": str(number) if as_text else number}) == NINE + timedelta(
        microseconds=micros
    )


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "time_unreadable"),
        ("soon", "time_unreadable"),
        ("null", "time_unreadable"),
        ("infinity", "time_unreadable"),
        (True, "time_unreadable"),
        ({"minutes": 1_935_824_400}, "time_unreadable"),
        ([1_935_824_400], "time_unreadable"),
        ("2031-05-06T23:59:60Z", "time_unreadable"),
        ("2031-05-06T24:00:01Z", "time_unreadable"),
        ("2031-02-29T00:00:00Z", "time_unreadable"),
        ("2031-13-01T00:00:00Z", "time_unreadable"),
        ("2031-05-06T09:00:00+25:00", "time_unreadable"),
        ("2031-05-06 09:00:00 EST", "time_unreadable"),
        ("2031-05-06 09:00:00 Europe/Berlin", "time_unreadable"),
        ("2031-05-06T09:00:00.Z", "time_unreadable"),
        ("2031-05-06T09:00:00Z\0", "time_unreadable"),
        ("2031-05-06 (BC)", "time_unreadable"),
        ("06.05.2031 09:00", "time_unreadable"),
        ("05/06/2031 9:00:00 AM", "time_unreadable"),
        ("Tue May  6 11:00:00 CEST 2031", "time_unreadable"),
        ("Foo 6, 2031 09:00:00", "time_unreadable"),
        ("2031-05-06 09:00:00 (soon)", "time_unreadable"),
        ([2031, 13, 6, 9, 0], "time_unreadable"),
        ("292278994-08-17T07:12:55Z", "time_unreadable"),
        (10**20, "time_unreadable"),
        (-(10**19), "time_unreadable"),
        ("+1935824400", "time_unreadable"),
        ("0x7364", "time_unreadable"),
        (0, "time_before_2000"),
        (-1, "time_before_2000"),
        ("-1935824400", "time_before_2000"),
        (-1_935_824_400_123_456_789, "time_before_2000"),
        ("0001-01-01T00:00:00Z", "time_before_2000"),
        ("1999-12-31T23:59:59.999999999Z", "time_before_2000"),
        ("9999-12-31T23:59:59Z", "time_too_far_ahead"),
        (99_999_999_999, "time_too_far_ahead"),
    ],
)
def test_garbage_is_named(
    connection: duckdb.DuckDBPyConnection, written: object, reason: str
) -> None:
    """What cannot be a time is a dead letter with the rule's name, never an error and never a guess."""
    assert judge(connection, {"time": written}) == reason


def test_bounds(connection: duckdb.DuckDBPyConnection) -> None:
    """2000 begins inclusively, so does the pipeline's start; exactly a day ahead is the last moment taken."""
    year_2000, long_ago = datetime(2000, 1, 1, tzinfo=UTC), datetime(1990, 1, 1, tzinfo=UTC)
    micro = timedelta(microseconds=1)
    latest = LANDED_AT + MAX_AHEAD

    def at(moment: datetime, first_hour: datetime = long_ago) -> datetime | str:
        return judge(
            connection, {"time": moment.isoformat(timespec="microseconds")}, first_hour
        )

    assert (at(year_2000 - micro), at(year_2000)) == ("time_before_2000", year_2000)
    assert (at(latest), at(latest + micro)) == (latest, "time_too_far_ahead")
    assert (at(FIRST_HOUR - micro, FIRST_HOUR), at(FIRST_HOUR, FIRST_HOUR)) == (
        "before_start",
        FIRST_HOUR,
    )


@pytest.mark.parametrize(
    ("event", "moment"),
    [
        ({"timeUnixNano": "1935824400000000000", "observedTimeUnixNano": "1"}, NINE),
        ({"timeUnixNano": "0", "observedTimeUnixNano": 1935824400000000000}, NINE),
        ({"timeUnixNano": 0, "observedTimeUnixNano": "0"}, LANDED_AT),
        ({"observedTimeUnixNano": "1935824400000000000", "timeUnixNano": None}, NINE),
        ({"@t": "2031-05-06T09:00:00.0000000Z", "@mt": "Serilog"}, NINE),
        ({"t": {"$date": "2031-05-06T11:00:00.000+02:00"}, "s": "I"}, NINE),
        ({"datetime": "2031-05-06T09:00:00.000000+00:00", "level": 200}, NINE),
        ({"instant": {"epochSecond": 1935824400, "nanoOfSecond": 5}, "level": "INFO"}, NINE),
        ({"timeMillis": 1935824400000, "loggerName": "log4j"}, NINE),
        ({"requestReceivedTimestamp": "2031-05-06T09:00:00.000000Z", "stage": "Panic"}, NINE),
        ({"EdgeStartTimestamp": 1935824400000000000, "RayID": "x"}, NINE),
        ({"__REALTIME_TIMESTAMP": "1935824400000000"}, NINE),
        ({"date": 1935824400.0, "log": "Fluent Bit"}, NINE),
        ({"time_iso8601": "2031-05-06T11:00:00+02:00", "status": "502"}, NINE),
        ({"name": "osquery", "unixTime": 1935824400}, NINE),
        ({"kind": "Event", "eventTime": None, "lastTimestamp": "2031-05-06T09:00:00Z"}, NINE),
        ({"event": {"created": "2031-05-06T09:00:00Z", "action": "login"}}, NINE),
        ({"Event": {"System": {"TimeCreated": {"@SystemTime": "2031-05-06T09:00:00Z"}}}}, NINE),
        ({"Sns": {"Timestamp": "2031-05-06T09:00:00.000Z"}, "EventSource": "aws:sns"}, NINE),
        ({"timestamp": [2031, 5, 6, 9, 0]}, NINE),
        ({"timestamp": [2031, 5, 6, 9, 0, 0, 250_000_000]}, NINE + timedelta(milliseconds=250)),
        (
            {"timestamp": {"secs_since_epoch": 1935824400, "nanos_since_epoch": 5000}},
            NINE_AND_5,
        ),
        ({"timestamp": {"sec": 1935824400, "usec": 5}}, NINE_AND_5),
        ({"timestamp": {"__type": "Date", "iso": "2031-05-06T09:00:00.000005Z"}}, NINE_AND_5),
        ({"timestamp": 135_802_980_000_000_050}, NINE_AND_5),
        ({"timestamp": "640714212000000050"}, NINE_AND_5),
        ({"timestamp": 13_580_298_000_000_005}, NINE_AND_5),
        ({"TimeGenerated": "2031-05-06T09:00:00.0000000Z", "Type": "AzureDiagnostics"}, NINE),
        ({"timestamp": "0001-01-01T00:00:00Z[UTC"}, "time_unreadable"),
        ({"timestamp": "2031-05-06T09:00:00[Europe/Berlin]"}, "time_unreadable"),
        ({"timestamp": "2031-05-06 09:00:00 CEST"}, "time_unreadable"),
        ({"timestamp": "1e99"}, "time_unreadable"),
    ],
)
def test_times_of_loggers(
    connection: duckdb.DuckDBPyConnection, event: dict[str, object], moment: datetime | str
) -> None:
    """Each format's own field; a zone's name without an offset is ambiguous; OpenTelemetry's 0 is no time."""
    assert judge(connection, event) == moment


@pytest.mark.parametrize("name", TIME_FIELDS)
def test_fields(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Each of the known fields holds the time, wherever it stands; null is as good as absent."""
    nulls = dict.fromkeys(TIME_FIELDS)
    assert judge(connection, {**nulls, "other": 1, **at(name, NINE.isoformat())}) == NINE


def test_first_field_decides(connection: duckdb.DuckDBPyConnection) -> None:
    """Of several fields the first in the documented order decides, even if a later one could be read."""
    backwards: dict[str, object] = {}
    for n, name in reversed([*enumerate(TIME_FIELDS)]):
        backwards |= at(name, (NINE + timedelta(hours=n)).isoformat())
    assert judge(connection, backwards) == NINE
    assert (
        judge(connection, {"time": NINE.isoformat(), "timestamp": "soon"}) == "time_unreadable"
    )


@pytest.mark.parametrize(
    "event", ["{}", '{"time":null}', '{"data":{"time":"2031-05-06T09:00:00Z"}}', '{"Time":1}']
)
def test_missing_time_is_the_landing_time(
    connection: duckdb.DuckDBPyConnection, event: str
) -> None:
    """An event without a time of its own has the time at which it was landed."""
    assert judge(connection, event) == LANDED_AT


@pytest.mark.parametrize(
    ("event", "moment"),
    [
        ({"id": {"time": "2031-05-06T09:00:00Z"}, "actor": {"email": "x"}}, NINE),
        ({"metadata": {"timestamp": 1935824400000}, "kind": "audit"}, NINE),
        ({"log": {"ts": "soon"}, "record": {"time": {"timestamp": 1935824400.0}}}, NINE),
        ({"result": {"_time": "2031-05-06T09:00:00.000+00:00"}, "offset": 0}, NINE),
        ({"jsonPayload": {"eventTime": "2031-05-06T09:00:00Z"}}, NINE),
        ({"user": {"time": "2031-05-06T09:00:00Z"}}, LANDED_AT),
        ({"event": {"created_at": "2031-05-06T09:00:00Z"}}, LANDED_AT),
        ({"log": {"date": "2031-05-06"}}, LANDED_AT),
        ({"log": {"time": "2031-05-09T09:00:00Z"}}, LANDED_AT),
        ({"record": {"timestamp": "2031-05-06T09:00:00Z"}, "ts": "2031-05-06T10:00:00Z"}, TEN),
        ({"record": {"timestamp": "2031-05-06T09:00:00Z"}, "start": "x"}, NINE),
    ],
)
def test_the_time_of_an_object_that_holds_the_event(
    connection: duckdb.DuckDBPyConnection, event: dict[str, object], moment: datetime
) -> None:
    """An event without a time has that of its object ``log``, ``record``, …: a time of day, not of a thing."""
    assert judge(connection, event) == moment


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["start_time"], ["start_time"]),
        (["StartTime", "event_timestamp", "time"], ["event_timestamp", "StartTime"]),
        (["published", "createdDateTime", "date_create"], None),
        (["startTimeUnixNano", "ts_ms", "logged-at", "at", "creationTime", "receivedAt"], None),
        (["due_date", "expires_at", "responseTime", "updated_at", "uptime", "timeout"], []),
        (["birthDate", "time_taken", "status", "start", "created_by", "ms", ""], ["start"]),
        (['time"x', "x" * 100, "timestamp\\"], []),
    ],
)
def test_names_that_say_time(names: list[str], found: list[str] | None) -> None:
    """All words of such a name are words for a time, its unit or the beginning of an event."""
    told = names_of_times(names)
    assert sorted(told) == sorted(names) if found is None else told == found


@pytest.mark.parametrize(
    ("event", "moment"),
    [
        ({"start_time": "soon", "created": NINE.isoformat()}, NINE),
        ({"started": True, "epochMillis": "1935824400000"}, NINE),
        ({"created": 5, "received": "1999-05-05"}, LANDED_AT),
        ({"created": "2031-05-08T09:00:00Z"}, LANDED_AT),
        ({"created": {"seconds": "1935824400"}}, NINE),
        ({"timestamp": "soon", "created": NINE.isoformat()}, "time_unreadable"),
        ({"timestamp": {"seconds": "x"}}, "time_unreadable"),
        ({"timestamp": {"a": 1}}, "time_unreadable"),
        ({"timestamp": "{soon"}, "time_unreadable"),
        ({"time": "/Date(x)/"}, "time_unreadable"),
        ({"time": "/Date(9223372036854775807)/"}, "time_unreadable"),
        ({"time": "99/May/2031:09:00:00 +0000"}, "time_unreadable"),
    ],
)
def test_a_time_under_another_name_counts_if_it_is_possible(
    connection: duckdb.DuckDBPyConnection, event: dict[str, object], moment: datetime | str
) -> None:
    """No event is lost for a field that only seems to be its time; a known field decides alone."""
    assert judge(connection, event) == moment


@pytest.mark.slow
@many
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["$date", "seconds"]), inner)
        ),
        max_leaves=3,
    )
)
def test_what_is_possible_in_python_can_be_asked_of_anything(value: object) -> None:
    """No value of a record makes the search for envelopes fail."""
    assert is_possible(value) in {True, False}


@pytest.mark.slow
@many
@given(
    moment=st.datetimes(datetime(2020, 1, 1), datetime(2031, 5, 6)),  # noqa: DTZ001
    minutes=st.integers(-12 * 60, 14 * 60),
    separator=st.sampled_from("T "),
)
def test_any_moment_survives(
    connection: duckdb.DuckDBPyConnection, moment: datetime, minutes: int, separator: str
) -> None:
    """Whatever the offset, the text that Python writes is read as the same moment."""
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    expected = aware.astimezone(UTC) if aware >= FIRST_HOUR else "before_start"
    assert judge(connection, {"ts": aware.isoformat(separator)}) == expected


@pytest.mark.slow
@many
@given(nanos=st.integers(946_684_800_000_000_000, 1_935_000_000_000_000_000))
def test_any_nanoseconds_are_floored(connection: duckdb.DuckDBPyConnection, nanos: int) -> None:
    """Nanoseconds never round into the next microsecond, nor an event into the next hour."""
    expected = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanos // 1000)
    assert judge(connection, {"ts": nanos}, datetime(1960, 1, 1, tzinfo=UTC)) == expected


@pytest.mark.slow
@many
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        st.lists,
        max_leaves=3,
    )
)
def test_nothing_makes_the_query_fail(
    connection: duckdb.DuckDBPyConnection, value: object
) -> None:
    """No value of a time field can stop a landing pass."""
    judge(connection, {"timestamp": value})


@pytest.mark.slow
@many
@given(written=st.text("0123456789-+:.,TZz eE", max_size=40))
def test_text_like_times_never_makes_the_query_fail(
    connection: duckdb.DuckDBPyConnection, written: str
) -> None:
    """Nor can digits and signs in any order."""
    judge(connection, {"timestamp": written})


@pytest.mark.parametrize(
    "event",
    [
        {"date": "2031-05-06", "time": "09:00:00"},  # CloudFront, IIS
        {"time": "09:00:00.000Z", "date": "2031/05/06"},
        {"Date": "2031-05-06", "Time": "10:00:00+01:00"},
        {"timestamp": "09:00", "date": "2031-05-06"},
        {"log_date": "2031-05-06", "log_time": "09:00:00,000", "level": "info"},
    ],
)
def test_a_date_and_a_time_of_day_in_two_fields(
    connection: duckdb.DuckDBPyConnection, event: dict[str, object]
) -> None:
    """Are one time, never midnight; beside a whole time they count for nothing."""
    assert judge(connection, event) == NINE
    assert judge(connection, {**event, "timestamp": TEN.isoformat()}) == TEN


@pytest.mark.parametrize("nothing", ["", " ", "-", "null", "None", "N/A", "undefined"])
@pytest.mark.parametrize("other", ["time", "start_time", "created", "timeUnixNano"])
def test_a_value_that_stands_for_no_time(
    connection: duckdb.DuckDBPyConnection, nothing: str, other: str
) -> None:
    """Leaves the event to its next field; alone it is unreadable, not the time of landing."""
    value: object = "1935824400000000000" if other == "timeUnixNano" else NINE.isoformat()
    assert judge(connection, {"timestamp": nothing, other: value}) == NINE
    assert judge(connection, {"timestamp": nothing}) == "time_unreadable"


@pytest.mark.parametrize(
    "name", ["time_local", "asctime", "T", "logtime", "timegenerated", "utc", "start", "begin"]
)
def test_more_names_that_say_time(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """nginx, Python, zap, rsyslog, VPC flow logs; a number that is no time counts for nothing."""
    assert judge(connection, {name: NINE.isoformat()}) == NINE
    assert judge(connection, {name: 17}) == LANDED_AT
