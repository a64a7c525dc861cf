"""Crash points: where a test may kill the process, and nowhere else."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import obs_assets
from obs_assets import crash, settings
from obs_assets.crash import CRASH_POINTS, arm, crash_point
from obs_assets.errors import ConfigurationError


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """No test leaves a point armed."""
    yield
    arm(None)


def test_points_are_those_in_the_code() -> None:
    """Every registered point is passed somewhere, and every point that is passed is registered."""
    code = "".join(path.read_text() for path in Path(obs_assets.__file__).parent.rglob("*.py"))
    calls = "".join(re.findall(r"crash_point\(([^)]*)\)", code))
    assert set(re.findall(r'"(\w+\.\w+)"', calls)) == CRASH_POINTS


def test_unarmed_points_do_nothing() -> None:
    """Unless the environment arms one, work goes on."""
    settings.load({})
    for name in CRASH_POINTS:
        crash_point(name)


def test_a_misspelt_point_in_the_code_is_an_error() -> None:
    """Not a point that never fires."""
    with pytest.raises(LookupError, match="unregistered crash point 'landing"):
        crash_point("landing.befor_chunk")
    with (
        pytest.raises(LookupError, match="unregistered crash point 'landing"),
        crash.interrupted("landing.befor_chunk", list),
    ):
        pass


def test_an_interrupted_point_does_what_a_test_asks() -> None:
    """Each time it is passed within the block, and no longer; an error goes on from there."""
    passed: list[int] = []
    with crash.interrupted("landing.after_chunk", lambda: passed.append(1)):
        for name in ("landing.before_chunk", "landing.after_chunk", "landing.after_chunk"):
            crash_point(name)
    crash_point("landing.after_chunk")
    assert passed == [1, 1]
    with (
        crash.interrupted("landing.after_chunk", lambda: 1 / 0),
        pytest.raises(ZeroDivisionError),
    ):
        crash_point("landing.after_chunk")
    crash_point("landing.after_chunk")


@pytest.mark.parametrize(
    "spec", ["landing", "landing.before_chunk:x", "landing.before_chunk:0", "landing.x:1", ":1"]
)
def test_a_misspelt_setting_is_explained(spec: str) -> None:
    """A harness that arms nothing would prove nothing."""
    with pytest.raises(ConfigurationError, match="OBS_CRASH_AT"):
        settings.load({"OBS_CRASH_AT": spec})
    assert not crash._armed


@pytest.mark.parametrize(
    "spec", ["landing.after_chunk", "landing.after_chunk:1", "landing.after_chunk:3"]
)
def test_an_armed_point_kills_at_once(spec: str) -> None:
    """SIGKILL, the n-th time the point is passed: no handler runs, nothing is flushed."""
    script = "\n".join(
        [
            "import atexit, sys",
            "from obs_assets import crash, settings",
            "atexit.register(print, 'goodbye')",
            "settings.load()",
            "for n in range(5):",
            "    crash.crash_point('landing.before_chunk')",
            "    crash.crash_point('landing.after_chunk')",
            "    print(n, file=sys.stderr, flush=True)",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"OBS_CRASH_AT": spec},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
    assert done.stderr.split() == [str(n) for n in range(int(spec[20:] or 1) - 1)]
