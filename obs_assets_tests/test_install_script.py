"""scripts/install.py: what a newcomer sees while packages are installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from obs_assets_tests.harness import PROJECT


def install(lock: Path, venv: Path) -> "subprocess.CompletedProcess[str]":
    """Install a lock file into an environment, from this machine's files alone."""
    command = [str(venv / "bin" / "python"), str(PROJECT / "scripts" / "install.py"), str(lock)]
    env = {"PATH": os.defpath, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_it_says_how_many_packages_and_what_failed(tmp_path: Path) -> None:
    """A number at the start and at the end; after a failure pip's own reason and its exit code."""
    venv = tmp_path / "a venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    lock = tmp_path / "some.lock"
    lock.write_text("# nothing is missing\n")
    done = install(lock, venv)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Installing 0 packages of some.lock into {venv}" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("0 packages installed")

    lock.write_text("no-such-package==1.0\n    # via nothing\n")
    failed = install(lock, venv)
    assert failed.returncode == 1
    assert "Installing 1 packages of some.lock" in failed.stdout
    assert "No matching distribution found for no-such-package==1.0" in failed.stdout
    assert failed.stdout.splitlines()[-1] == "pip could not install some.lock: see above"


def test_both_locks_hold_the_same_versions() -> None:
    """`requirements.lock` is a part of `requirements-dev.lock`: installing the second changes nothing of the first."""
    locks = [PROJECT / "requirements.lock", PROJECT / "requirements-dev.lock"]
    runtime, everything = (
        {line for line in lock.read_text().splitlines() if "==" in line} for lock in locks
    )
    assert len(runtime) > 50
    assert runtime <= everything
    assert any(line.startswith("pytest==") for line in everything - runtime)
