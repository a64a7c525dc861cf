#!/usr/bin/env bash
# The redaction tests on the oldest and the newest supported Python: where `re` is another, events were lost in silence.
#
# oldest  3.11.2 of Debian 12 as it was released, whose `re` has CPython's issues 106052 and 100061; Debian's update of
#         2026 has mended it, and machines without that update are still in use. Its packages are unpacked, not installed.
# newest  the newest from 3.12 to 3.14 that is on this machine.
#
# Needs apt-get, dpkg and `.venv/bin/uv`. Environments are kept in .venv/pythons until the lock file changes.
set -euo pipefail
cd "$(dirname "$0")/.."

TESTS=(
    obs_assets_tests/transforms/test_python_patterns.py
    obs_assets_tests/transforms/test_self_test.py
    obs_assets_tests/transforms/test_redact.py
    obs_assets_tests/transforms/test_redact_memory.py
)
ROOT=$PWD/.venv/pythons
UV=.venv/bin/uv
LOCK=requirements-dev.lock
[ -f "$LOCK" ] || LOCK=requirements.lock
mkdir -p "$ROOT"

# download SUITE ARCHIVE PACKAGE[=VERSION]…: fetch packages of a Debian release, whatever release this machine has
download() {
    local suite=$1 archive=$2 apt=$ROOT/apt-$1
    shift 2
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/debs"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main" >"$apt/sources.list"
    local options=(
        -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=/dev/null" -o "Dir::Cache=$apt" -o "Dir::Etc::sourcelist=$apt/sources.list"
        -o "Dir::Etc::sourceparts=/dev/null" -o "APT::Sandbox::User=root" -o "Acquire::Retries=3"
    )
    apt-get "${options[@]}" update -qq
    (cd "$apt/debs" && apt-get "${options[@]}" download -qq "$@")
}

# mirror: the first mirror of Debian that apt knows on this machine, without its security archive
mirror() {
    apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -n 1
}

oldest() {
    local python=$ROOT/debian-12/usr/bin/python3.11
    if [ ! -x "$python" ]; then
        download bookworm "$(mirror)" \
            python3.11 python3.11-minimal libpython3.11-stdlib libpython3.11-minimal
        for package in "$ROOT"/apt-bookworm/debs/*.deb; do dpkg -x "$package" "$ROOT/debian-12"; done
    fi
    "$python" -c 'import re; print("faults of re:", bool(re.fullmatch("(?:ab?c)*+", "a")))' >&2
    echo "$python"
}

newest() {
    local version python
    for version in 3.14 3.13 3.12; do
        for python in "python$version" "$HOME/.pyenv/versions/$version".*/bin/python; do
            python=$(command -v "$python") && "$python" -c "" 2>/dev/null && echo "$python" && return
        done
    done
    echo "no Python from 3.12 to 3.14 is on this machine: on Debian 13 and newer, install python3" >&2
    return 1
}

run() {
    local python=$1 name=$2
    local environment=$ROOT/$name
    if ! cmp -s "$LOCK" "$environment/lock"; then
        "$UV" venv --quiet --clear --python "$python" "$environment"
        "$UV" pip install --quiet --python "$environment/bin/python" -r "$LOCK"
        cp "$LOCK" "$environment/lock"
    fi
    echo "== redaction tests on $("$environment/bin/python" -V), $python"
    "$environment/bin/python" -m pytest -q -n 2 -p no:cacheprovider "${TESTS[@]}"
}

run "$(oldest)" oldest
run "$(newest)" newest
