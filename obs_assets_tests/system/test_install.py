"""`make demo` where people run it: as root below a closed folder, as an ordinary user, and in a path of all letters.

Each gets a clone, and a virtual environment of its own below it. The packages are those of the running one, linked
instead of installed; what pip would write with the folder's path in it, programs and the link to the clone, is written
anew.
"""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from obs_assets import embedded
from obs_assets_tests.harness import BIN, PROJECT

pytestmark = pytest.mark.system

USER = "daemon"
"""An ordinary user that every Debian has."""

PROGRAMS = ("dagster", "dagster-daemon", "dagster-webserver", "obs", "weed")
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user reaches, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="obs-install-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def clone(place: Path, python: str) -> Path:
    """A clone of this repository in a place, installed."""
    subprocess.run(
        ["git", "clone", "--quiet", "--no-hardlinks", str(PROJECT), str(place)], check=True
    )
    venv = place / ".venv"
    subprocess.run([python, "-m", "venv", "--without-pip", str(venv)], check=True)
    packages = venv / "lib" / VERSION / "site-packages"
    shutil.copytree(
        sysconfig.get_path("purelib"),
        packages,
        symlinks=True,
        dirs_exist_ok=True,
        copy_function=link_or_copy,
    )
    for link in (
        *packages.glob("__editable__*obs_assets*"),
        *packages.glob("obs_assets*.dist-info/direct_url.json"),
    ):
        link.unlink()
    (packages / "obs_assets.pth").write_text(f"{place}\n")
    for name in PROGRAMS:
        write_program(BIN / name, venv)
    for stamp in (".installed", ".installed-dev"):
        (venv / stamp).touch()
    return place


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def write_program(installed: Path, venv: Path) -> None:
    """A program of the running environment, as pip writes it for another one: with that one's Python, in any path."""
    content = installed.read_bytes()
    target = venv / "bin" / installed.name
    if content.startswith(b"#!"):
        script = content.split(b"\n", 1)[1]
        start = f"#!/bin/sh\n'''exec' \"{venv}/bin/python\" \"$0\" \"$@\"\n' '''\n"
        target.write_bytes(start.encode() + script)
    else:
        shutil.copy2(installed, target)
    target.chmod(0o755)


def python_for(user: str) -> str:
    """A Python of this version that a user can run."""
    for candidate in (
        getattr(sys, "_base_executable", sys.executable),
        f"/usr/local/bin/{VERSION}",
        f"/usr/bin/{VERSION}",
    ):
        # setpriv itself would still reach a program as root
        command = [
            "setpriv",
            *as_user(user),
            "/bin/sh",
            "-c",
            '"$0" -c "import venv"',
            candidate,
        ]
        if subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == 0:
            return str(candidate)
    pytest.fail(f"no {VERSION} that {user} can run")


def as_user(user: str) -> list[str]:
    """Options of setpriv."""
    entry = pwd.getpwnam(user)
    return [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]


def make_demo(place: Path, *before: str) -> str:
    """``make demo`` with nothing in the environment, no terminal and no language; returns what it printed."""
    printed = place / "printed.txt"
    with printed.open("wb") as output:
        done = subprocess.run(
            ["setsid", "--wait", *before, "make", "demo"],
            cwd=place,
            env={"PATH": os.defpath, "HOME": str(place)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=280,
            check=False,
        )
    said = printed.read_text()
    assert done.returncode == 0, said
    return said


@contextlib.contextmanager
def servers_of(place: Path) -> Iterator[None]:
    """Leaves no server running when a demo was broken off."""
    try:
        yield
    finally:
        embedded.stop(place / ".obs" / "demo")


def is_whole(said: str) -> bool:
    """Whether a demo ended well, with every count as planted."""
    return (
        "✓ every count equals the count in the event files" in said
        and re.search(r"^\d+ s in all$", said, re.M) is not None
    )


def test_as_root_below_a_folder_that_only_root_enters(folder: Path) -> None:
    """Like `/root` in every container image: PostgreSQL, which runs as another user there, finds its programs."""
    folder.chmod(0o700)
    place = clone(folder / "obs_assets", sys.executable)
    with servers_of(place):
        assert is_whole(make_demo(place))


def test_as_an_ordinary_user(folder: Path) -> None:
    """Nothing needs root, and nothing is written outside the clone."""
    place = clone(folder / "obs_assets", python_for(USER))
    entry = pwd.getpwnam(USER)
    for path in (
        place,
        *(path for path in place.rglob("*") if ".venv" not in path.relative_to(place).parts),
    ):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    with servers_of(place):
        assert is_whole(make_demo(place, "setpriv", *as_user(USER)))
        assert {path.owner() for path in (place / ".obs").rglob("*")} == {USER}


def test_in_a_path_with_a_blank_and_letters_beyond_ascii(folder: Path) -> None:
    """A home of `José` or `我的 项目`, without a language in the environment."""
    place = clone(folder / "José 项目", sys.executable)
    with servers_of(place):
        assert is_whole(make_demo(place))
