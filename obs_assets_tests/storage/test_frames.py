"""Frames and receipts on disk: whole or not at all, and the owner's alone."""

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from obs_assets.destinations.s3 import S3Config, S3Destination
from obs_assets.errors import ConfigurationError, MissingFrameError, ObsError, PermanentError
from obs_assets.receipts import InputVersion, Receipt
from obs_assets.storage import disk, engine
from obs_assets.storage.disk import make_private_dir, replacing
from obs_assets.storage.engine import connect, connect_to_stream
from obs_assets.storage.frames import Store, write_parquet
from obs_assets_tests.dying import DiedError, dies_at
from obs_assets_tests.frames import HOUR


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(tmp_path_factory.mktemp("spill")) as opened:
        yield opened


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_replacing_puts_the_whole_file_in_place(tmp_path: Path) -> None:
    """Until the block ends the old file is what readers see; then the new one, and nothing else is left."""
    path = tmp_path / "deep" / "a.txt"
    for content in ("old", "new"):
        with replacing(path) as aside:
            aside.write_text(content)
            assert aside.parent == path.parent
            assert path.exists() == (content == "new")
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]
    assert mode(path) == 0o600


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_replacing_keeps_the_old_file_on_failure(tmp_path: Path, error: BaseException) -> None:
    """What was half written is removed; the error is passed on as it is."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as aside:
            aside.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_refusal_of_the_disk_is_explained(tmp_path: Path) -> None:
    """The message names the file, the reason and the free space; the old file stays."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    expected = rf"cannot write {path}: File too large \([0-9,]+ bytes free there\)"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(ObsError, match=expected), replacing(path) as aside:
            aside.write_text("new" * 1_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_refusal_met_by_duckdb_is_explained(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """DuckDB's own error becomes ours."""

    def write_to_a_folder() -> None:
        with disk.explained(tmp_path / "a.parquet"):
            write_parquet(connection.sql("SELECT 1 AS n"), tmp_path)

    with pytest.raises(
        ObsError, match=r"cannot write .*a\.parquet: .* bytes free there"
    ) as refused:
        write_to_a_folder()
    # The result is closed although the traceback still holds it.
    assert connection.sql("SELECT 2").to_arrow_table().num_rows == 1, refused.value


def test_private_folders_are_the_owners_alone(tmp_path: Path) -> None:
    """Every folder that is made on the way is private, whatever the umask; those that were there stay as they are."""
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    old = os.umask(0o022)
    try:
        deepest = make_private_dir(there / "a" / "b" / "c")
    finally:
        os.umask(old)
    assert [mode(path) for path in (deepest, deepest.parent, deepest.parent.parent)] == [
        0o700
    ] * 3
    assert mode(there) == 0o755
    assert make_private_dir(deepest) == deepest


def test_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    """The message names the folder and the setting."""
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigurationError,
        match=r"cannot make the folder .*file/below \(OBS_DATA_DIR\): Not a directory",
    ):
        make_private_dir(tmp_path / "file" / "below")


@pytest.mark.slow
def test_connection_is_bounded_and_alone(tmp_path: Path) -> None:
    """It spills into a private folder, computes in UTC and installs nothing."""
    with connect(tmp_path / "spill", memory_limit="64MB", threads=1) as opened:
        names = [
            "temp_directory",
            "memory_limit",
            "threads",
            "TimeZone",
            "autoinstall_known_extensions",
        ]
        settings = {
            name: str(opened.sql(f"SELECT current_setting('{name}')").fetchall()[0][0])
            for name in names
        }
        rows = opened.sql(
            "SELECT count(*) FROM (SELECT range AS n, random() AS r FROM range(3_000_000) ORDER BY r)"
        )
        assert rows.fetchall() == [(3_000_000,)]
    assert settings == {
        "temp_directory": str(tmp_path / "spill"),
        "memory_limit": "61.0 MiB",
        "threads": "1",
        "TimeZone": "UTC",
        "autoinstall_known_extensions": "False",
    }
    assert mode(tmp_path / "spill") == 0o700


def test_a_machine_of_many_cores_is_not_taken_whole(tmp_path: Path) -> None:
    """Threads have a limit, and memory grows with them: 8 that share 1 GB cannot sort an hour of a million events."""
    asked = "SELECT current_setting('threads'), current_setting('memory_limit')"
    with connect(tmp_path) as opened:
        ((threads, memory),) = opened.sql(asked).fetchall()
    assert threads == engine.threads_on(len(os.sched_getaffinity(0)))
    assert [engine.threads_on(cores) for cores in (1, 2, 8, 64)] == [1, 2, 8, 8]
    with connect(tmp_path, memory_limit=engine.memory_for(threads), threads=16) as opened:
        assert opened.sql(asked).fetchall() == [(16, memory)]
    assert [engine.memory_for(threads) for threads in (1, 2, 4, 8)] == [
        "1000MB",
        "1000MB",
        "1024MB",
        "2048MB",
    ]


def test_frames_are_written_in_their_order(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Rows come back as they were ordered, over several row groups, lightly compressed."""
    frame = connection.sql("SELECT (range * 7919) % 200_003 AS n FROM range(200_003)").order(
        "n"
    )
    path = Store(tmp_path).write_frames([(HOUR, [frame])], "raw_events")[HOUR]
    assert path == tmp_path / "frames" / "raw_events" / "2025120410.parquet"
    assert pq.read_table(path)["n"].to_pylist() == list(range(200_003))
    metadata = pq.read_metadata(path)
    assert metadata.num_row_groups > 1
    assert metadata.row_group(0).column(0).compression == "SNAPPY"
    assert Store(tmp_path).read_frame(connection, "raw_events", HOUR).aggregate(
        "count(*)"
    ).fetchall() == [(200_003,)]


def test_what_was_not_built_is_named(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """A missing frame or receipt says which stage to materialize for which hour."""
    nothing = Store(tmp_path)
    with pytest.raises(
        MissingFrameError,
        match=r"raw_events has no hour 2025-12-04-10:00: materialize raw_events",
    ):
        nothing.read_frame(connection, "raw_events", HOUR)
    with pytest.raises(
        MissingFrameError, match=r"raw_events has no receipt for 2025-12-04-10:00: materialize"
    ):
        nothing.read_receipt("raw_events", HOUR)
    assert nothing.find_receipt("raw_events", HOUR) is None


def test_receipts_are_kept_by_stage_and_hour(tmp_path: Path) -> None:
    """Written, read, found and forgotten."""
    kept = Store(tmp_path)
    receipt = Receipt(HOUR.key, "raw_events", InputVersion(1, "a", "b"), 2, 2)
    assert kept.write_receipt(receipt, HOUR) == kept.read_receipt("raw_events", HOUR) == receipt
    assert kept.find_receipt("raw_events", HOUR.next) is None
    assert kept.find_receipt("enriched_events", HOUR) is None
    kept.forget_receipt("raw_events", HOUR)
    kept.forget_receipt("raw_events", HOUR)
    assert kept.find_receipt("raw_events", HOUR) is None


@pytest.mark.slow
def test_a_stream_has_room_for_the_largest_row_group(tmp_path: Path) -> None:
    """An hour of long events is read all the same: memory follows the row group, not a fixed limit."""
    path = tmp_path / "frame.parquet"
    with duckdb.connect() as connection:
        long = (
            "array_to_string(list_transform(range(400), lambda n: md5((n * i)::VARCHAR)), '')"
        )
        connection.sql(f"SELECT i, {long} AS event FROM range(24_000) AS t(i)").write_parquet(
            str(path), compression="lz4_raw", row_group_size=61_440
        )
    with connect_to_stream(tmp_path / "spill", path) as connection:
        read = connection.read_parquet(str(path)).project("event").to_arrow_reader(2048)
        assert sum(len(batch) for batch in read) == 24_000
    with connect_to_stream(tmp_path / "spill", tmp_path / "missing.parquet") as connection:
        assert connection.sql("SELECT current_setting('memory_limit')").fetchall() == [
            ("256.0 MiB",)
        ]


def test_an_error_without_a_number_is_the_engines(tmp_path: Path) -> None:
    """Whatever its text says, it is not taken for a refusal of the file system, and passes as it is."""
    with (
        pytest.raises(OSError, match="a text of some engine"),
        replacing(tmp_path / "a.parquet"),
    ):
        raise OSError("a text of some engine")
    assert list(tmp_path.iterdir()) == []


def test_only_frames_and_receipts_pass_their_crash_points(tmp_path: Path) -> None:
    """A metrics file or a YAML file is not killed at the crash point of a frame."""
    with dies_at("frame.before_rename"), replacing(tmp_path / "metrics.prom") as aside:
        aside.write_text("")
    with (
        dies_at("frame.before_rename"),
        pytest.raises(DiedError),
        replacing(tmp_path / "a", crash="frame") as aside,
    ):
        aside.write_text("")


def test_a_folder_that_cannot_be_made_names_its_own_setting(tmp_path: Path) -> None:
    """A directory of the archive is not blamed on OBS_DATA_DIR."""
    (tmp_path / "file").touch()
    archive = S3Destination(S3Config(bucket=f"file://{tmp_path}/file/archive"))
    with pytest.raises(
        ConfigurationError, match=r"cannot make the folder .*\(the bucket of the archive\)"
    ):
        archive.check()


def test_failures_that_nothing_asks_for_do_not_pile_up() -> None:
    """A query that fails on several threads leaves some behind: the newest are kept, and found."""
    first, *_, last = [
        engine.wrap_failure(PermanentError(str(n))) for n in range(10 * engine.MOST_FAILURES)
    ]
    assert len(engine._failures) == engine.MOST_FAILURES
    assert engine.unwrap_failure(first) is None
    assert str(engine.unwrap_failure(last)) == str(10 * engine.MOST_FAILURES - 1)
