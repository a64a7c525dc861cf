"""The command line as people and scripts use it: words, exit codes, JSON, and one sentence for what is wrong."""

import gzip
import json
import lzma
import os
import pkgutil
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import boto3
import psutil
import psycopg
import pytest
from dagster import DagsterInstance

from obs_assets import cli, embedded
from obs_assets.cli import commands as table
from obs_assets.cli.dev import condensed
from obs_assets.demo.receiver import Receiver
from obs_assets.embedded import exports
from obs_assets.hourly import pipeline, pipeline_files
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import COMPONENT_TYPE
from obs_assets.settings import Settings
from obs_assets.transforms.redact import CustomPattern, RedactConfig
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR
from obs_assets_tests.harness import Done

Obs = Callable[..., Done]


@pytest.fixture
def events_dir(tmp_path: Path) -> Path:
    """An hour of events, and a line that is none."""
    file = harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    with file.open("a") as more:
        more.write("no event\n")
    return file.parent


@pytest.fixture
def obs(
    settings: Settings,
    events_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Obs:
    """`obs` in this process, with the environment that a command of its own would have."""
    for name in list(os.environ):
        if name.startswith(("OBS_", "POSTGRES_", "AWS_", "WEBHOOK_")):
            monkeypatch.delenv(name)
    for name, value in harness.environment(settings, events_dir).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, **environment: str) -> Done:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["obs", *arguments])
            patch.setattr(boto3, "DEFAULT_SESSION", None)  # which remembers credentials
            capsys.readouterr()
            with pytest.raises(SystemExit) as caught:
                cli.main()
        return Done(int(caught.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def built(settings: Settings, events_dir: Path) -> HourlyPipeline:
    """The default pipeline, one hour of it built."""
    config = pipeline.load(pipeline_files.find().path, {"OBS_EVENTS_DIR": str(events_dir)})
    hourly = HourlyPipeline(config, settings)
    hourly.land()
    harness.build(hourly, HOUR)
    return hourly


# -- words -------------------------------------------------------------------------------------------------------------


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in getattr(group, "commands", {}).items():
        yield (*path, name), command
        yield from commands(command, (*path, name))


COMMANDS: dict[tuple[str, ...], Any] = {}
for _name in table.COMMANDS:
    _command = table.imported(_name)
    COMMANDS[_name,] = _command
    COMMANDS.update(commands(_command, (_name,)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_teaches(obs: Obs, path: tuple[str, ...]) -> None:
    """Every command says in a sentence what it does, and every argument and option what it is."""
    done = obs(*path, "--help")
    assert done.code == 0
    command = COMMANDS[path]
    sentence = (command.help or "").splitlines()[0]
    assert sentence.endswith(".")
    assert len(sentence.split()) > 4
    assert " ".join(sentence.split()[:4]) in done.out
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{parameter.name} is not explained"


@pytest.mark.parametrize("name", table.COMMANDS)
def test_the_list_says_what_the_help_says(name: str) -> None:
    """The summary of a command in ``obs --help`` is the first paragraph of its own help."""
    paragraph = COMMANDS[name,].help.split("\n\n")[0]
    assert table.COMMANDS[name].summary == " ".join(paragraph.split())


def test_every_command_has_a_row() -> None:
    """A command that a module adds stands in the table, so that ``obs`` finds it."""
    for module in pkgutil.iter_modules(cli.__path__):
        import_module(f"obs_assets.cli.{module.name}")
    registered = {
        command.name or command.callback.__name__ for command in cli.app.registered_commands
    }
    registered |= {group.name for group in cli.app.registered_groups}
    assert {str(name).replace("_", "-") for name in registered} == set(table.COMMANDS)


HEAVY = (
    "dagster",
    "duckdb",
    "fastapi",
    "numpy",
    "pandas",
    "psycopg",
    "pyarrow",
    "pydantic",
    "requests",
)


def test_help_imports_no_engine() -> None:
    """``obs --help`` answers at once: it imports neither databases nor engines nor Dagster."""
    code = "import sys; from obs_assets.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    imported = done.stdout.splitlines()[-1].split()
    assert "typer" in imported
    assert not set(HEAVY).intersection(imported)


def test_every_command_that_answers_has_json() -> None:
    """Scripts read the same answers as people do."""
    groups = {path for path, command in COMMANDS.items() if getattr(command, "commands", None)}
    silent = [
        path
        for path, command in COMMANDS.items()
        if not any("--json" in p.opts for p in command.params)
    ]
    # `dev`, `psql`, `receive` and `serve` run until they are ended; `s3 cat` writes the bytes of an object.
    running = {("dev",), ("psql",), ("receive",), ("serve",)}
    assert set(silent) == {*groups, *running, ("s3", "cat")}


def test_the_version_is_printed(obs: Obs) -> None:
    """`obs --version` names the version that is installed."""
    done = obs("--version")
    assert done.code == 0
    assert done.out.startswith(f"obs_assets {metadata.version('obs_assets')}, Python 3.")


@pytest.mark.slow
def test_the_console_script_is_the_command_line(settings: Settings) -> None:
    """`obs` is installed, and without arguments it shows what there is."""
    done = harness.run("obs", env=harness.environment(settings))
    assert done.code == 2
    for path in COMMANDS:
        assert path[0] in done.said


# -- other programs ----------------------------------------------------------------------------------------------------


def test_env_leads_other_programs_to_the_servers(obs: Obs, settings: Settings) -> None:
    """What a shell takes over from `obs env` is how psql, AWS tools and Dagster reach the same servers."""
    done = obs("env")
    assert done.code == 0
    shell = f"{done.out}\nenv -0"
    printed = subprocess.run(
        ["/bin/sh", "-c", shell], env={"PATH": os.defpath}, capture_output=True, check=True
    ).stdout
    found = dict(line.split("=", 1) for line in printed.decode().split("\0") if line)
    assert settings.postgres
    assert settings.s3
    with psycopg.connect(
        host=found["PGHOST"], port=found["PGPORT"], dbname=found["PGDATABASE"], user=found["PGUSER"],
        password=found["PGPASSWORD"],
    ) as connection:  # fmt: skip
        assert connection.execute("SELECT current_database()").fetchone() == (
            settings.postgres.database,
        )
    assert found["AWS_ENDPOINT_URL_S3"] == settings.s3.endpoint_url
    for program in ("obs", "dagster", "psql"):
        assert shutil.which(program, path=found["PATH"])
    assert {
        name: found[name] for name in found if name.startswith(("PG", "AWS_"))
    }.items() <= json.loads(obs("env", "--json").out).items()


def test_env_knows_the_embedded_servers(
    settings: Settings, tmp_path: Path, servers: Settings
) -> None:
    """Without servers of one's own: the embedded ones, with their keys, and the home that `make dev` uses."""
    found = exports.exports(servers, {})
    assert servers.postgres
    assert servers.s3
    assert found["DAGSTER_HOME"] == str(servers.data_dir / "dagster")
    assert (found["PGHOST"], found["PGPORT"]) == (
        servers.postgres.host,
        str(servers.postgres.port),
    )
    assert found["AWS_ACCESS_KEY_ID"] == servers.s3.access_key_id
    assert "DAGSTER_HOME" not in exports.exports(servers, {"DAGSTER_HOME": str(tmp_path)})


def test_env_names_the_folder_of_pipelines(
    obs: Obs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`obs` in another folder finds the same pipelines; the packaged example is not named, so that it can give way."""
    monkeypatch.chdir(tmp_path)
    assert pipeline_files.VARIABLE not in json.loads(obs("env", "--json").out)
    own = str(tmp_path / "pipelines")
    written = json.loads(obs("init", ".", "--json").out)["wrote"]
    assert written == [
        f"{own}/events/defs.yaml",
        f"{own}/events/tests.yaml",
        str(tmp_path / "README.md"),
    ]
    for named in ("", "pipelines"):
        found = json.loads(obs("env", "--json", OBS_PIPELINES_DIR=named).out)
        assert found[pipeline_files.VARIABLE] == own
    monkeypatch.chdir("/")
    done = obs("validate", "--offline", OBS_PIPELINES_DIR=own)
    assert f"{own}/events/defs.yaml" in done.out
    missing = obs("env", OBS_PIPELINES_DIR="/nowhere")
    assert (missing.code, missing.out) == (2, "")
    assert "OBS_PIPELINES_DIR names /nowhere" in missing.err


@pytest.mark.slow
def test_psql_is_opened_on_the_tables(built: HourlyPipeline, settings: Settings) -> None:
    """`obs psql` takes psql's own options, and asks the database that holds the events."""
    for arguments in (
        ("-At", "-c", "SELECT count(*) FROM events"),
        ("--", "-Atc", "SELECT count(*) FROM events"),
    ):
        done = harness.run("obs", "psql", *arguments, env=harness.environment(settings))
        assert done.code == 0, done.err
        assert done.out.strip() == str(
            harness.ask(settings.postgres, "SELECT count(*) FROM events")[0][0]
        )


@pytest.mark.slow
def test_s3_ls_lists_the_archive(obs: Obs, built: HourlyPipeline, settings: Settings) -> None:
    """Each object with its bytes and a URL that AWS tools take; a prefix chooses."""
    assert settings.s3
    stored = {
        f"s3://{settings.s3.bucket}/{key}": len(body)
        for key, body in harness.objects(settings).items()
    }
    assert json.loads(obs("s3", "ls", "--json").out) == stored
    assert len(stored) == 2
    for url, body in zip(stored, harness.objects(settings).values(), strict=True):
        command = [str(harness.BIN / "obs"), "s3", "cat", url]
        env = harness.environment(settings)
        assert subprocess.run(command, env=env, capture_output=True, check=True).stdout == body
    missing = obs("s3", "cat", "none")
    assert missing.code == 2
    assert "has no object none: see `obs s3 ls`" in missing.err
    listed = obs("s3", "ls", "cortex-events/year=").out.splitlines()
    assert len(listed) == 2
    assert listed[0].split()[1] in stored
    assert listed[1].endswith("bytes in 1 objects")


@pytest.mark.slow
def test_land_and_build_are_runs_that_the_ui_shows(
    settings: Settings, events_dir: Path
) -> None:
    """`obs land` and `obs build DAY` do what Dagster's commands do, and their runs are in DAGSTER_HOME."""
    env = harness.environment(settings, events_dir)
    landed = harness.run("obs", "land", "--json", env=env)
    assert landed.code == 0, landed.said
    assert json.loads(landed.out) == {
        "hours": {HOUR.key: len(harness.an_hour())},
        "dead_letters": 1,
    }
    built = harness.run("obs", "build", f"{HOUR.key}...{HOUR.next.key}", "--json", env=env)
    assert built.code == 0, built.said
    counts = json.loads(built.out)
    assert counts[HOUR.key]["landed"] == len(harness.an_hour())
    assert (
        counts[HOUR.key]["postgres_events"]
        == harness.ask(settings.postgres, "SELECT count(*) FROM events")[0][0]
    )
    assert counts[HOUR.next.key]["landed"] == 0
    with DagsterInstance.from_config(env["DAGSTER_HOME"]) as instance:
        assert instance.get_runs_count() == 2


def test_build_refuses_hours_that_the_pipeline_has_not(obs: Obs) -> None:
    """Before its start and in the future: one sentence, and nothing is run."""
    done = obs("build", "2031-02-03")
    assert done.code == 2
    assert "is not between 2000-01-01-00:00, the pipeline's start" in done.err


# -- answers and exit codes --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_verify_says_green_and_red(obs: Obs, built: HourlyPipeline) -> None:
    """0 and one line a store when all is well; 1 and the number when it is not."""
    green = obs("verify", HOUR.key)
    assert green.code == 0
    assert green.out.count("✓") == len(green.out.splitlines()) == 8
    harness.ask(built.postgres, "DELETE FROM events WHERE event_id = 'err-3'")
    red = obs("verify", HOUR.key)
    assert red.code == 1
    (line,) = [line for line in red.out.splitlines() if line.startswith("✗")]
    assert "postgres_events" in line
    assert line.endswith("1 missing")


@pytest.mark.slow
def test_search_finds_stored_events(obs: Obs, built: HourlyPipeline) -> None:
    """A line an event and the range that was searched; JSON with the whole event; pages by the printed id."""
    query = "SELECT count(*) FROM events WHERE event_level = 'error'"
    ((errors,),) = harness.ask(built.postgres, query)
    done = obs("search", "level:error")
    assert (done.code, len(done.out.splitlines())) == (0, errors)
    assert f"rows {errors}, events that they stand for" in done.err
    assert "searched 2025-12-0" in done.err
    archive = obs("search", "level:error", "--archive-mb=5")
    assert "archive: rows 0, hours 0, 0.0 of at most 5 MB" in archive.err
    pages: list[str] = []
    after: list[str] = []
    while len(pages) < 2 * errors:
        page = obs("search", "level:error", "--limit=1", "--oldest", "--json", *after)
        pages += page.out.splitlines()
        (more,) = re.findall("more: (--after) (.*)", page.err) or [None]
        if more is None:
            break
        after = list(more)
    times = [json.loads(line)["timestamp"] for line in pages]
    assert len(times) == errors
    assert times == sorted(times)
    assert all(json.loads(line)["data"] for line in pages)


@pytest.mark.slow
def test_tail_prints_events_that_are_stored_meanwhile(obs: Obs, built: HourlyPipeline) -> None:
    """The last events first; then only the new rows of an hour that is replaced, which is said."""
    assert built.postgres

    def load_later() -> None:
        looking = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'obs tail'"
        waiting = time.monotonic() + 30
        while harness.ask(built.postgres, looking) == [(0,)] and time.monotonic() < waiting:
            time.sleep(0.1)
        time.sleep(1)
        late = {"id": "late", "type": "task_failed", "level": "error", "error": "late"}
        folder = Path(str(built.config.source.events_dir))
        harness.write_events(folder / "late.jsonl", [harness.at(HOUR, 1, late)])
        built.land()
        harness.build(built, HOUR)

    with ThreadPoolExecutor(1) as aside:
        loading = aside.submit(load_later)
        options = ("--last=2", "--seconds=12", "--every=0.2", "--json")
        done = obs("tail", "level:error", *options)
        loading.result()
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, len(lines)) == (0, 3)
    assert lines[-1]["event_id"] == "late"
    assert f"the hour {HOUR.start:%Y-%m-%d %H:00} UTC was replaced" in done.err


@pytest.mark.slow
def test_where_says_where_an_event_is(obs: Obs, built: HourlyPipeline) -> None:
    """A line an event, JSON for scripts, exit code 1 for an event that is not known, 2 without a name."""
    # The identity of the file decides which rows the sample keeps: nine of ten are sampled out.
    places = {f"evt-{number}": obs("where", f"evt-{number}") for number in range(20)}
    assert {shown.code for shown in places.values()} == {0}
    sampled_out = [
        name for name, shown in places.items() if shown.out.split()[0] == "sampled_out:success"
    ]
    assert sampled_out
    assert obs("where", "err-3").out.split()[0] == "stored"
    answer = json.loads(obs("where", sampled_out[0], "--json").out)
    assert answer["complete"]
    (event,) = answer["events"]
    at = obs("where", "--file", event["file"], "--offset", str(event["offset"]), "--json")
    assert json.loads(at.out)["events"] == [event]
    unknown = obs("where", "never")
    assert (unknown.code, unknown.out) == (1, "")
    assert "no such event is known" in unknown.err
    nameless = obs("where")
    assert nameless.code == 2
    assert "name one of: the id of an event, --trace, or --file" in nameless.err


@pytest.mark.slow
def test_search_explains_an_empty_answer_and_a_mistake(obs: Obs, built: HourlyPipeline) -> None:
    """A misspelt column is named, a mistake has its position, and a range that ends first is refused."""
    assert built.postgres
    nothing = obs("search", "levels:error")
    assert (nothing.code, nothing.out) == (0, "")
    assert "'levels' is no column; did you mean 'level'?" in nothing.err
    for arguments, message in {
        ("level:",): "the query ends too early at character 7",
        ("duration:soon",): "duration_ms is a number, and 'soon' is not",
        ("", "--from=yesterday"): "'yesterday' is no moment",
        ("", "--from=now", "--to=now-1h"): "is not before the end",
        ("", "--after=x"): "'x' is no id of an event",
    }.items():
        refused = obs("search", *arguments)
        assert refused.code != 0
        assert message in refused.err


@pytest.mark.slow
def test_verify_takes_a_range(obs: Obs, built: HourlyPipeline) -> None:
    """Both ends are included; the hour that was never built is the one that is red."""
    done = obs("verify", f"{HOUR}...{HOUR.next}", "--json")
    assert done.code == 1
    answers = json.loads(done.out)
    assert [answer["hour"] for answer in answers] == [HOUR.key] * 8 + [HOUR.next.key] * 8
    assert {answer["hour"] for answer in answers if not answer["ok"]} == {HOUR.next.key}
    assert answers[5].keys() >= {
        "store",
        "rows",
        "expected",
        "missing",
        "unexpected",
        "different",
        "problem",
        "ok",
    }


@pytest.mark.slow
def test_status_counts(obs: Obs, built: HourlyPipeline) -> None:
    """What has landed, and which hours wait; numbers in JSON, words for people."""
    told = json.loads(obs("status", "--json").out)
    assert (told["files landed"], told["hours landed"], told["events landed"]) == (1, 1, 34)
    assert told["stale hours"] == 0
    assert [server["running"] for server in told["servers"]] == [False, False]
    assert "events landed  34" in obs("status").out
    without = obs("status", POSTGRES_PORT="1")
    assert without.code == 0
    assert "not known: PostgreSQL at 127.0.0.1:1 does not answer" in without.out


@pytest.mark.slow
def test_dead_letters_are_counted_and_not_shown(obs: Obs, built: HourlyPipeline) -> None:
    """File, reason, number and bytes; never what stood there."""
    done = obs("dead-letters", "list", "--json")
    assert done.code == 0
    (counted,) = json.loads(done.out)
    assert counted.pop("first_seen")
    assert counted == {"file": "a.jsonl", "reason": "not_json", "letters": 1, "bytes": 9}
    assert "no event" not in obs("dead-letters", "list").out


@pytest.mark.slow
def test_dead_letters_are_shown_redacted(
    obs: Obs, events_dir: Path, built: HourlyPipeline
) -> None:
    """What is JSON is redacted; what is none, where nobody can tell a password by its key, is shown with --raw only."""
    harness.write_events(
        events_dir / "old.jsonl",
        [
            {
                "timestamp": "1999-01-01T00:00:00Z",
                "to": "jane@example.com",
                "password": "hunter2",
            }
        ],
    )
    with (events_dir / "old.jsonl").open("a") as file:
        file.write('{"password": "hunter3", }\n')
    built.land()
    shown = obs("dead-letters", "show", "--file", "old.jsonl").out
    assert "time_before_2000" in shown
    assert "jane@example.com" not in shown
    assert "hunter" not in shown
    raw = json.loads(obs("dead-letters", "show", "--file", "old.jsonl", "--raw", "--json").out)
    assert sorted("hunter2" in letter["text"] for letter in raw) == [False, True]
    assert "hunter3" in json.dumps(raw)


@pytest.mark.slow
def test_a_letter_that_cannot_be_redacted_hides_no_other(
    obs: Obs, events_dir: Path, built: HourlyPipeline
) -> None:
    """A number that is none is the most usual letter of all: it is shown, what else it holds is redacted."""
    (events_dir / "odd[app].jsonl").write_text(
        '{"n": NaN, "to": "jane@example.com"}\n{"n": 1e999, "password": "hunter2"}\n'
        f'{{"deep": {"[" * 300}"219-09-9999"{"]" * 300}}}\n{{"n": -Infinity}}\n'
    )
    built.land()
    shown = obs("dead-letters", "show", "--file", "odd[app].jsonl")
    assert shown.code == 0
    assert '"n": "NaN", "to": "j***e@example.com"' in shown.out
    assert '"n": "-Infinity"' in shown.out
    assert shown.out.count("cannot be redacted") == 2
    assert "hunter2" not in shown.out
    assert "219-09" not in shown.out
    assert "odd[app].jsonl" in obs("dead-letters", "list").out


@pytest.mark.slow
def test_dead_letters_are_replayed(obs: Obs, events_dir: Path, built: HourlyPipeline) -> None:
    """What an earlier limit refused is landed in its hour; a second replay has nothing to do."""
    harness.write_events(
        events_dir / "long.jsonl", [harness.at(HOUR, 7, {"filler": "x" * 3000})]
    )
    source = built.config.source.model_copy(update={"max_event_bytes": 1024})
    HourlyPipeline(
        built.config.model_copy(update={"source": source}), built.settings, built.name
    ).land()
    before = built.landed().hour(HOUR)
    assert (
        "1 event of 1 hour; too_long 1 fewer"
        in obs("dead-letters", "replay", "--reason", "too_long").out
    )
    after = built.landed().hour(HOUR)
    assert after.rows == before.rows + 1
    assert after.generation > before.generation
    assert (
        obs("dead-letters", "replay").out == "none of the unreadable records can be read now\n"
    )


MENDED: list[bool] = []
"""Not empty once `odd` works."""


def odd(value: str) -> bool:
    """A validator of a user's that fails until it is mended."""
    if not MENDED:
        raise RuntimeError(value)
    return True


@pytest.mark.slow
def test_events_that_could_not_be_redacted_are_dead_letters(
    obs: Obs, events_dir: Path, built: HourlyPipeline, tmp_path: Path
) -> None:
    """They are listed by hour, shown with file and offset and without their text, and named by a replay when mended."""
    pattern = CustomPattern(name="odd", regex="CANARY", validator=f"{__name__}.odd")
    config = built.config.model_copy(update={"redact": RedactConfig(patterns=(pattern,))})
    built = replace(built, config=config)
    pipelines = harness.write_pipeline(tmp_path / "pipelines", config)
    obs = partial(obs, OBS_PIPELINES_DIR=str(pipelines))
    harness.write_events(
        events_dir / "b.jsonl",
        [harness.at(HOUR, n, {"id": f"b{n}", "to": "CANARY@example.com"}) for n in (1, 2)],
    )
    MENDED.clear()
    built.land()
    harness.build(built, HOUR)
    listed = json.loads(obs("dead-letters", "list", "--json").out)
    assert listed[1:] == [{"hour": HOUR.key, "reason": "redactor_failed", "letters": 2}]
    assert re.search(rf"{HOUR.key}\s+redactor_failed\s+2", obs("dead-letters", "list").out)

    shown = obs("dead-letters", "show", "--reason", "redactor_failed")
    offset = len((events_dir / "b.jsonl").read_bytes().splitlines(keepends=True)[0])
    assert "b.jsonl at 0, " in shown.out
    assert f"b.jsonl at {offset}, " in shown.out
    assert "CANARY" not in shown.said
    assert obs("dead-letters", "show", "--file", "b.jsonl", "--raw").out.count("CANARY") == 2
    assert "partition" not in obs("dead-letters", "replay").out

    MENDED.append(True)
    done = obs("dead-letters", "replay")
    assert f"2 more events of {HOUR} can be redacted now: dagster asset materialize" in done.out
    assert f"--select '*' --partition {HOUR.key}" in done.out
    harness.build(built, HOUR)
    assert "redactor_failed" not in obs("dead-letters", "list").out


@pytest.mark.slow
def test_alerts_are_listed_and_sent_again(
    obs: Obs, settings: Settings, events_dir: Path
) -> None:
    """A dispatch that its receiver refused is failed, listed without its body, and sent by `retry` with its old id."""
    closed = f"http://127.0.0.1:{free_port()}/CANARY"
    environment = {"WEBHOOK_URL": closed, "OBS_EVENTS_DIR": str(events_dir)}
    config = pipeline.load(pipeline_files.find().path, environment)
    once = [
        one.model_copy(update={"max_retries": 1}) if one.type == "webhook" else one
        for one in config.destinations
    ]
    config = config.model_copy(update={"destinations": tuple(once)})
    machine = settings.model_copy(
        update={
            "webhook": settings.webhook.model_copy(
                update={"allow_private": True, "send_old": True}
            )
        }
    )
    hourly = HourlyPipeline(config, machine)
    hourly.land()
    harness.build(hourly, HOUR)

    (waiting,) = json.loads(obs("alerts", "list", "--json", WEBHOOK_URL=closed).out)
    assert (waiting["state"], waiting["events"]) == ("pending", 5)
    assert "body" not in waiting
    assert "CANARY" not in json.dumps(waiting)
    narrow = harness.environment(settings, events_dir, WEBHOOK_URL=closed, COLUMNS="40")
    listed = harness.run("obs", "alerts", "list", "--state", "pending", env=narrow)
    assert waiting["webhook_id"] in listed.out
    assert obs("alerts", "list", "--state", "sent", WEBHOOK_URL=closed).out == "no dispatches\n"
    assert obs("alerts", "retry", waiting["webhook_id"], WEBHOOK_URL=closed).code == 1
    with Receiver() as receiver:
        done = obs("alerts", "retry", waiting["webhook_id"], WEBHOOK_URL=receiver.url)
        assert (done.code, done.out) == (0, f"{waiting['webhook_id']} is sent\n")
        assert [request.webhook_id for request in receiver.requests] == [waiting["webhook_id"]]
        again = obs("alerts", "retry", waiting["webhook_id"], WEBHOOK_URL=receiver.url)
    assert (again.code, again.err) == (
        1,
        f"obs: no dispatch {waiting['webhook_id']!r} was given up\n",
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_redact_shows_what_the_pipeline_would_leave(obs: Obs, tmp_path: Path) -> None:
    """Lines on standard output, counts by type beside them; numbers keep their digits."""
    file = tmp_path / "some.jsonl"
    file.write_text(
        '{"n": 1.50, "who": "jane@example.com"}\n\n{"n": 123456789012345678901234567890}\n'
    )
    done = obs("redact", str(file))
    assert done.code == 0
    lines = done.out.splitlines()
    assert "jane@example.com" not in done.out
    assert '"n": 1.50' in lines[0]
    assert lines[1] == '{"n": 123456789012345678901234567890}'
    assert done.err == "email 1\n"
    told = json.loads(obs("redact", str(file), "--json").out)
    assert told["redacted"] == {"email": 1}
    assert len(told["events"]) == 2


def test_redact_passes_over_what_is_not_json(obs: Obs, tmp_path: Path) -> None:
    """The line is named, not shown, and the next is printed; a mark at the beginning is no riddle."""
    for line in (
        b"CANARY",
        b'{"CANARY": "caf\xe9"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"CANARY": [',
    ):
        (file := tmp_path / "some.jsonl").write_bytes(
            b'\xef\xbb\xbf{"n": 1}\r\n' + line + b'\n{"n": 2}\n'
        )
        done = obs("redact", str(file))
        assert (done.code, done.out) == (1, '{"n": 1}\n{"n": 2}\n')
        assert done.err.splitlines() == [
            f"obs: line 2 of {file} is not JSON in UTF-8",
            "nothing to redact",
            "obs: 1 of the file's records cannot pass",
        ]


def test_redact_reads_packed_files(obs: Obs, tmp_path: Path) -> None:
    """gzip and UTF-16 are unpacked; a damaged file names the first missing line, another packing what to do."""
    lines = '{"n": 1, "who": "jane@example.com"}\n{"n": 2}\n'
    packed = {
        "a.gz": gzip.compress(lines.encode()),
        "b.jsonl": lines.encode("utf-16"),
        "c.gz": gzip.compress(lines.encode())[:-4],
        "d.xz": lzma.compress(lines.encode()),
    }
    done = {}
    for name, content in packed.items():
        (tmp_path / name).write_bytes(content)
        done[name] = obs("redact", str(tmp_path / name))
        assert "jane@" not in done[name].out
    assert (done["a.gz"].code, len(done["a.gz"].out.splitlines())) == (0, 2)
    assert done["b.jsonl"].out == done["a.gz"].out
    assert (
        done["c.gz"].code,
        "line 3 and the lines after it are missing" in done["c.gz"].err,
    ) == (1, True)
    assert (done["d.xz"].code, "packed as .xz: unpack it" in done["d.xz"].err) == (1, True)


@pytest.mark.slow
def test_redact_names_the_lines_that_cannot_pass(obs: Obs, tmp_path: Path) -> None:
    """What is JSON and no event, in any batch; all others are printed, in their order."""
    some = [
        json.dumps({"n": number, "who": f"jane{number}@example.com"}) for number in range(5_000)
    ]
    (file := tmp_path / "some.jsonl").write_text(
        "\n".join([*some, '["CANARY"]', *some, *["7"] * 25])
    )
    done = obs("redact", str(file))
    assert [json.loads(line)["n"] for line in done.out.splitlines()] == [
        *range(5_000),
        *range(5_000),
    ]
    assert "@example.com" not in re.sub(r"j\*\*\*\d@example\.com", "", done.out)
    named = done.err.splitlines()
    assert named[0].startswith(
        f"obs: line 5001 of {file} holds an event on which the redactor failed"
    )
    assert named[1].startswith(f"obs: line 10002 of {file} ")
    assert len(named) == 20 + 2
    assert named[-2:] == [
        "email 10,000",
        "obs: 26 of the file's records cannot pass, 6 of them not named above",
    ]
    assert done.code == 1
    assert "CANARY" not in done.said


def test_redact_takes_objects_on_several_lines(obs: Obs, tmp_path: Path) -> None:
    """A printed object comes out on one line, digits as they were, and does not hide the lines around it."""
    printed = '{\n  "n": 1.50,\n  "to": [\n    "jane@example.com"\n  ],\n  "text": "} {"\n}\n'
    (file := tmp_path / "some.jsonl").write_text(
        f'{{"n": 1}}\n{printed}{{"n": 3}}\n{{\n"n": 4\n'
    )
    done = obs("redact", str(file))
    lines = done.out.splitlines()
    assert [lines[0], lines[2]] == ['{"n": 1}', '{"n": 3}']
    assert lines[1].startswith(
        '{"n": 1.50,"to": ["j***e@example.com"],"text": "} {","_redaction":'
    )
    assert len(lines) == 3
    assert f"line 10 of {file} is not JSON" in done.err
    assert f"line 11 of {file} is not JSON" in done.err
    assert done.code == 1


def test_redact_holds_no_file_in_memory(obs: Obs, tmp_path: Path) -> None:
    """With --json too, lines around a bad one are printed, and its number; no event at all is an empty list."""
    (file := tmp_path / "some.jsonl").write_text('{"n": 1}\nCANARY\n{"n": 2}\n')
    done = obs("redact", str(file), "--json")
    assert json.loads(done.out) == {
        "events": [{"n": 1}, {"n": 2}],
        "redacted": {},
        "failed_lines": [2],
    }
    assert done.code == 1
    file.write_text("\n")
    nothing = {"events": [], "redacted": {}, "failed_lines": []}
    assert json.loads(obs("redact", str(file), "--json").out) == nothing


@pytest.mark.slow
def test_validate_tries_everything(obs: Obs) -> None:
    """The file, the events folder and each server, one line each."""
    done = obs("validate")
    assert done.code == 0
    assert done.out.count("✓") == 5
    told = json.loads(obs("validate", "--json").out)
    assert told["findings"] == {}
    assert told["checks"]["events folder"].startswith("1 event file in ")


def test_init_names_the_next_command(
    obs: Obs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes the folder only if the pipeline is written into another folder."""
    monkeypatch.chdir(tmp_path)
    for here, name in ((".", "a"), ("./", "b"), (str(tmp_path), "c")):
        assert obs("init", here, "--name", name).out.endswith("\nNext: obs validate\n")
    assert obs("init", "my logs").out.endswith("\nNext: cd 'my logs'; obs validate\n")


def test_validate_can_stay_offline(obs: Obs) -> None:
    """A pipeline file can be checked where no server is."""
    done = obs("validate", "--offline", POSTGRES_PORT="1", OBS_EVENTS_DIR="/nowhere")
    assert done.code == 0
    assert done.out.count("✓") == 1


def test_validate_starts_no_server(obs: Obs, tmp_path: Path) -> None:
    """Where the embedded servers are down it says so and leaves them down. The folder of `make dev` is found."""
    (folder := tmp_path / "own" / "events").mkdir(parents=True)
    (folder / "a.jsonl").touch()
    done = obs(
        "validate",
        OBS_DATA_DIR=str(folder.parent),
        OBS_EVENTS_DIR="",
        POSTGRES_HOST="",
        AWS_S3_BUCKET="",
    )
    assert done.code == 0
    assert f"1 event file in {folder}" in done.out
    assert (
        done.out.count("not checked: the embedded PostgreSQL does not run; `obs up` starts it")
        == 2
    )
    assert (
        done.out.count("not checked: the embedded S3 server does not run; `obs up` starts it")
        == 1
    )
    assert not [server for server in embedded.status(folder.parent) if server.running]


@pytest.mark.slow
def test_files_that_are_passed_over_are_told(obs: Obs, events_dir: Path) -> None:
    """A folder of other files is no silent success: `validate` and `status` count them by the ending of their names."""
    for name in (
        "app.txt",
        "app.txt.1",
        "app-20251204.txt.gz",
        "README",
        ".hidden",
        "data.csv",
    ):
        (events_dir / name).touch()
    for command in ("validate", "status"):
        (line,) = [line for line in obs(command).out.splitlines() if "passed over" in line]
        assert "3 × a file named *.txt, for which source.include has no pattern" in line
        assert "1 × a file named *.csv" in line
        assert "1 × a file named without an ending" in line
        assert "hidden" not in line


def test_validate_checks_every_pipeline(obs: Obs, tmp_path: Path) -> None:
    """Each file with its mistakes, the right ones with their servers; --pipeline chooses one."""
    for name, attributes in {
        "shop": "{}",
        "zoo": "{sample: {success_rat: 1}}",
        "typo": "{}",
    }.items():
        (tmp_path / "own" / name).mkdir(parents=True)
        kind = (
            "obs_assets.components.ObservabilityPipelin" if name == "typo" else COMPONENT_TYPE
        )
        (tmp_path / "own" / name / "defs.yaml").write_text(
            f"type: {kind}\nattributes: {attributes}\n"
        )
    own = {"OBS_PIPELINES_DIR": str(tmp_path / "own")}
    done = obs("validate", **own)
    assert done.code == 2
    assert f"✓ shop: configuration  {tmp_path}/own/shop/defs.yaml is valid" in done.out
    assert (
        f"{tmp_path}/own/typo/defs.yaml:1: type: there is one type of pipeline; did you mean"
        in done.err
    )
    assert (
        f"{tmp_path}/own/zoo/defs.yaml:2: sample: unknown option 'success_rat'; did you mean"
        in done.err
    )
    assert obs("validate", "--pipeline", "shop", "--offline", **own).code == 0
    assert obs("status", "--pipeline", "shop", **own).code == 0
    assert "several pipelines" in obs("status", **own).err


@pytest.mark.slow
def test_names_are_printed_as_they_are(obs: Obs, tmp_path: Path) -> None:
    """Brackets in the name of a file or folder are no markup, whatever stands in them."""
    (folder := tmp_path / "events [" / "prod] [bold] :smile:").mkdir(parents=True)
    (file := folder / "defs.yaml").write_bytes(pipeline_files.find().path.read_bytes())
    assert f"{file} is valid" in obs("validate", str(file), "--offline").out
    assert f"event files in {folder}" in obs("validate", OBS_EVENTS_DIR=str(folder)).out
    assert str(folder) in obs("status", OBS_EVENTS_DIR=str(folder)).out


def test_what_the_system_refuses_is_a_sentence(obs: Obs, tmp_path: Path) -> None:
    """A data folder that is a file, for example."""
    (file := tmp_path / "data").touch()
    done = obs("status", OBS_DATA_DIR=str(file))
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(rf"obs: {file}/\S+: Not a directory\n", done.err)


def test_validate_names_file_line_and_field(obs: Obs, tmp_path: Path) -> None:
    """A mistake in a pipeline file is misuse: 2, and everything that is wrong at once."""
    (file := tmp_path / "defs.yaml").write_text(
        "attributes:\n  sample: {error_rat: 1, error_rate: x}\n"
        "  redact: {mode: blur, modes: {passport: keep}, detect_ssn: 7}\n"
        "  filter: {drop_levels: [debug], drop_low_value: maybe}\n  retention_days: 1.5\n"
    )
    done = obs("validate", str(file))
    assert done.code == 2
    assert (
        f"{file}:2: sample: unknown option 'error_rat'; did you mean 'error_rate'?" in done.err
    )
    for place in (
        "3: redact.mode: must be 'mask', 'hash' or 'remove'",
        "3: redact.modes: unknown type passport; there are ",
        "3: redact.detect_ssn: must be true or false",
        "2: sample.error_rate: must be a number",
        "4: filter.drop_low_value: must be true or false",
        "5: retention_days: must be a whole number",
    ):
        assert f"{file}:{place}" in done.err


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["verify", "yesterday"],
            "'yesterday' is not an hour; write it as Dagster does, for example 2025-12-04-10:00",
        ),
        (["verify", f"{HOUR.next}...{HOUR}"], "runs backwards"),
        (["verify", f"{HOUR}..."], "'' is not an hour"),
        (["verify", HOUR.key, "--pipeline", "nowhere"], "no pipeline is called 'nowhere'; in "),
        (["validate", "/nowhere.yaml"], "cannot read the pipeline file /nowhere.yaml"),
        (["verify"], "Missing argument"),
        (["nonsense"], "No such command"),
        (["alerts", "list", "--limit", "0"], "--limit"),
        (["redact", "/nowhere"], "No such file"),
    ],
)
def test_misuse_is_2_and_a_sentence(obs: Obs, arguments: list[str], words: str) -> None:
    """Nobody reads a traceback for a slip of the finger."""
    done = obs(*arguments)
    assert done.code == 2
    assert words in " ".join(done.err.split())
    assert "Traceback" not in done.said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "check", "setting"),
    [
        ({"OBS_EVENTS_DIR": "/nowhere"}, "events folder", "OBS_EVENTS_DIR"),
        ({"POSTGRES_PASSWORD": "CANARY_wrong"}, "postgres_events", "POSTGRES_PASSWORD"),
        ({"POSTGRES_PORT": "1"}, "postgres_events", "POSTGRES_PORT"),
        ({"POSTGRES_DB": "nowhere"}, "postgres_events", "POSTGRES_DB"),
        ({"AWS_S3_BUCKET": "nowhere-to-be-found"}, "s3_archive", "AWS_S3_BUCKET"),
        ({"AWS_SECRET_ACCESS_KEY": "CANARY_wrong"}, "s3_archive", "AWS credentials"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, "s3_archive", "AWS_ENDPOINT_URL_S3"),
        ({"WEBHOOK_URL": "http://127.0.0.1:1/CANARY"}, "webhook_alerts", "WEBHOOK_URL"),
    ],
)
def test_validate_names_the_setting(
    obs: Obs, settings: Settings, environment: dict[str, str], check: str, setting: str
) -> None:
    """One sentence for what cannot be reached; the rest is checked all the same; nothing is left behind."""
    before = harness.tree(settings.data_dir)
    done = obs("validate", "--json", **environment)
    assert done.code == 1
    told = json.loads(done.out)
    assert setting in told["findings"][check]
    assert "\n" not in told["findings"][check]
    assert len(told["checks"]) == 5
    assert told["findings"].keys() <= {check, "webhook_alerts"}  # whose outbox is in PostgreSQL
    assert "CANARY" not in done.said
    assert harness.tree(settings.data_dir) == before


@pytest.mark.slow
def test_a_port_in_use_is_a_sentence(settings: Settings) -> None:
    """`make dev` names the setting and another port, before it starts anything."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        env = harness.environment(settings, PORT=port)
        done = harness.run("obs", "dev", env=env)
    assert done.code == 2
    assert done.err == f"obs: Port {port} is in use: set PORT, for example PORT=3100 make dev\n"
    assert harness.tree(settings.data_dir) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "2026-11-29 21:10:44 +0000 - web - INFO - Serving dagster-webserver on http://127.0.0.1:3111 in",
            "the UI is ready: http://127.0.0.1:3111",
        ),
        (
            "\x1b[32m2026-11-29 21:10:44 +0000\x1b[0m - dagster - \x1b[34mERROR\x1b[0m - a run failed",
            "error: a run failed",
        ),
        (
            "2026-11-29 21:10:44 +0000 - dagster - WARNING - " + 400 * "x",
            f"warning: {300 * 'x'}…",
        ),
        (
            "2026-11-29 21:10:44 +0000 - dagster - WARNING - No cursor for event type RUN_FAILURE, ignoring",
            "",
        ),
        (
            "2026-11-29 21:10:28 +0000 - dagster.daemon.SensorDaemon - INFO - Checking for new runs",
            "",
        ),
        ("  return callback(*args, **kwargs)", ""),
    ],
)
def test_dev_shows_of_dagsters_lines_what_matters(line: str, said: str) -> None:
    """The UI's address, warnings and errors, cut; nothing that is so at every start."""
    assert condensed(line + "\n") == said


@pytest.mark.slow
def test_dev_says_what_happens_and_is_quiet_otherwise(
    settings: Settings, events_dir: Path
) -> None:
    """Where to put files, the UI's address and the log; then a line for each pass; Ctrl-C ends every process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        api_port = str(probe.getsockname()[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        receive_port = str(probe.getsockname()[1])
    ports = {"PORT": port, "OBS_API_PORT": api_port, "OBS_RECEIVE_PORT": receive_port}
    env = harness.environment(settings, events_dir, **ports)
    harness.run("obs", "postgres", "init", env=env)
    command = [str(harness.BIN / "obs"), "dev"]
    lines: list[str] = []
    with subprocess.Popen(
        command, env=env, cwd=settings.data_dir.parent, stdout=subprocess.PIPE, text=True
    ) as dev:
        assert dev.stdout
        for line in dev.stdout:
            lines.append(line)
            if "  landed " in line:
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{api_port}/", timeout=30) as page:
            assert b"Search events" in page.read()
        body = b'{"type": "hello"}'
        receiver = f"http://127.0.0.1:{receive_port}/events"
        with urllib.request.urlopen(receiver, body, timeout=30) as answer:
            assert json.load(answer)["accepted"] == 1
        children = psutil.Process(dev.pid).children(recursive=True)
        dev.send_signal(signal.SIGINT)
        lines += dev.stdout
    assert dev.returncode == 0
    assert not [
        child
        for child in children
        if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    ]
    said = "".join(lines)
    assert f"put .jsonl files into {events_dir}; they are landed within a minute" in said
    assert f"the UI is ready: http://127.0.0.1:{port}" in said
    assert f"the explorer is at http://127.0.0.1:{api_port}" in said
    assert f"the receiver is at http://127.0.0.1:{receive_port}" in said
    assert f"landed {len(harness.an_hour())} events of {HOUR.key}, 1 dead letter " in said
    assert len(lines) < 20, said
    assert "Checking for new runs" in (settings.data_dir / "logs" / "dev.log").read_text()


@pytest.mark.slow
def test_an_empty_variable_is_an_unset_one(obs: Obs) -> None:
    """`OBS_EVENTS_DIR=` does not mean the folder where one happens to stand."""
    told: dict[str, Any] = json.loads(obs("status", "--json", OBS_EVENTS_DIR="").out)
    assert told["events folder"] == "not set: OBS_EVENTS_DIR"


def test_a_wrong_variable_is_named(obs: Obs) -> None:
    """By the name that people set."""
    done = obs("status", POSTGRES_PORT="many")
    assert done.code == 2
    assert "POSTGRES_PORT" in done.err
    assert "many" not in done.err


@pytest.mark.slow
def test_tables_are_made_and_kept_by_command(obs: Obs, settings: Settings) -> None:
    """`obs postgres init` says what it does and does it once; `upkeep` has nothing to do then; `status` shows it."""
    said = obs("postgres", "init", "--reader", "", "--json")
    assert said.code == 0
    (lines,) = json.loads(said.out).values()
    assert any(line.startswith("Make the table public.events") for line in lines)
    assert "is up to date" in obs("postgres", "init", "--reader", "").out
    assert "needs nothing" in obs("postgres", "upkeep").out
    tables = json.loads(obs("status", "--json").out)["tables"]
    assert tables["postgres_events"]["leaves"] == 0
    assert tables["postgres_events"]["version"].startswith("18")
