"""Files of real programs' formats: every event once, in its hour, with its level and type, and none made up.

The files are in `corpus`. What is done to them here is what happens to real files: they are cut anywhere, written
behind one another, get other line ends, byte order marks and blank lines, and are compressed.
"""

import gzip
import itertools
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_assets.events import with_columns
from obs_assets.sources.formats import FORMATS
from obs_assets.storage.engine import connect
from obs_assets_tests.frames import frame_of
from obs_assets_tests.sources.corpus import FILES, File, Found
from obs_assets_tests.sources.place import Place

pytestmark = pytest.mark.slow

NOW = datetime(2031, 5, 6, 12, 0, tzinfo=UTC)
some = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))

FEWEST = 5
"""Files of a format."""


def landed(place: Place) -> dict[str, list[Found]]:
    """File → minute, level and type of its events, in the order of the file."""
    rows = sorted(place.audit().rows(), key=lambda row: (row["event_file"], row["file_offset"]))
    if not rows:
        return {}
    texts = [row["line"] for row in rows]
    with connect(place.root / "spill", threads=1) as connection:
        frame = with_columns(frame_of(connection, texts))
        columns = frame.project("event_level, event_type").fetchall()
    found: defaultdict[str, list[Found]] = defaultdict(list)
    for row, (level, kind) in zip(rows, columns, strict=True):
        minute = row["event_time"].astimezone(UTC).strftime("%H:%M")
        is_timed = row["time_from"] != "landed_at"
        found[row["event_file"]].append((minute if is_timed else "now", level, kind))
    return found


def of_one(place: Place, content: bytes, options: dict[str, Any]) -> list[Found]:
    """What lands of a file that is complete."""
    place.path("a.log").write_bytes(content)
    place.now = NOW
    place.land(seal_after_minutes=0, **options)
    return landed(place).get("a.log", [])


@pytest.mark.parametrize("name", FILES)
def test_every_event_of_a_format_lands_once(place: Place, name: str) -> None:
    """At its minute, with its level and type; what is no event is a dead letter with a reason."""
    files = FILES[name]
    assert len(files) >= FEWEST
    for number, file in enumerate(files):
        place.path(f"{number}.log").write_bytes(file.content)
    place.now = NOW
    report = place.land(seal_after_minutes=0, **files[0].options)
    found = landed(place)
    for number, file in enumerate(files):
        assert (number, found.get(f"{number}.log", [])) == (number, file.events)
    reasons = set(itertools.chain.from_iterable(file.dead for file in files))
    assert set(report.dead_letters) == reasons


def test_each_row_of_the_table_of_formats_has_files() -> None:
    """A format that is added gets its five files."""
    others = {"azure", "cloudtrail", "cloudwatch", "cri", "docker", "elasticsearch", "otlp"}
    others |= {"datadog", "fluentd", "splunk"}
    text = {
        "kubernetes": "kubernetes audit",
        "journald": "journalctl -o json",
        "journald_export": "journalctl -o export",
    }
    text |= {"syslog": "syslog (RFC 5424)", **{name: name for name in others}}
    assert {text[row.name] for row in FORMATS} <= FILES.keys()


def joined(parts: Iterable[File]) -> list[Found]:
    return [*itertools.chain.from_iterable(part.events for part in parts)]


JSON = [file for files in FILES.values() for file in files if not file.options and file.joins]
TEXT = [[file for file in files if file.joins] for files in FILES.values() if files[0].options]
ANY = [file for files in FILES.values() for file in files]


@some
@given(
    parts=st.lists(st.sampled_from(JSON), min_size=1, max_size=5),
    between=st.sampled_from([b"\n", b"\r\n\n", b"\n\xef\xbb\xbf", b"\0", b"\n\x1e", b" \n\n"]),
    packed=st.booleans(),
    windows=st.booleans(),
)
def test_json_formats_behind_one_another(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[File],
    between: bytes,
    packed: bool,
    windows: bool,
) -> None:
    """In any order, with anything between them that separates events, with line ends of Windows, compressed or not."""
    content = between.join(part.content for part in parts)
    if windows:
        content = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    place = Place(tmp_path_factory.mktemp("place"))
    found = of_one(place, gzip.compress(content) if packed else content, {})
    assert found == joined(parts)


@some
@given(data=st.data(), packed=st.booleans())
def test_text_formats_behind_one_another(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, packed: bool
) -> None:
    """Files of one text format in any order, compressed or not."""
    files = data.draw(st.sampled_from(TEXT))
    parts = data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=4))
    content = b"\n".join(part.content for part in parts)
    place = Place(tmp_path_factory.mktemp("place"))
    found = of_one(place, gzip.compress(content) if packed else content, files[0].options)
    assert found == joined(parts)


@some
@given(file=st.sampled_from(ANY), data=st.data())
def test_files_that_are_read_while_they_grow(
    tmp_path_factory: pytest.TempPathFactory, file: File, data: st.DataObject
) -> None:
    """Cut at any byte, and landed before the rest is there: no event is lost, doubled or made up."""
    place = Place(tmp_path_factory.mktemp("place"))
    cuts = data.draw(st.lists(st.integers(1, len(file.content)), max_size=3))
    for cut in sorted(cuts):
        place.path("a.log").write_bytes(file.content[:cut])
        place.now = NOW
        place.land(**file.options)
    assert of_one(place, file.content, file.options) == file.events
