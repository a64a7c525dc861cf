"""The configuration now: the last valid text of each pipeline file.

Programs that run for a long time read pipeline files here: Dagster's code server and its runs,
``obs serve`` and ``obs receive``. A file can be wrong or half written at the moment at which they
read it. Then they go on with the last valid text, which is kept in the data folder, so that a run
that starts meanwhile has it too. Commands that a user types read the file itself, and refuse it.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel

from obs_assets import settings
from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline_files import PipelineFile, find, list_files, open_all
from obs_assets.storage.disk import replacing

SETTLED_S = 2.0
"""Seconds without a change after which a changed file counts as written to its end."""

PATIENCE_S = 10.0
"""Seconds to wait for that. A file that changes all the time is not read."""

FOLDER = "valid_pipeline_files"
"""Folder below the data folder that keeps the last valid texts."""

RESTART_NOTE = "restart_code_server"
"""File in the data folder that says why Dagster's code server must be restarted."""

_LOOK_S = 0.1

_log = logging.getLogger(__name__)

Env: TypeAlias = Mapping[str, str] | None
"""An environment; None for that of the process."""


@dataclass(frozen=True)
class Opened:
    """All pipelines, each by its last valid text.

    Attributes:
        pipelines: file → pipeline.
        problems: file → why its present text is not used. If the file has no valid text at all, the
            pipeline is not in ``pipelines``.
    """

    pipelines: dict[PipelineFile, HourlyPipeline]
    problems: dict[PipelineFile, str]


def open_valid(env: Env = None) -> Opened:
    """Open every pipeline that `list_files` finds, and keep the texts that are valid.

    A changed file is read when it has not changed for `SETTLED_S`.

    Raises:
        ConfigurationError: see `pipelines_dir`.
    """
    folder = settings.load(env).data_dir / FOLDER
    files = list_files(env)
    kept = {file: _read(_place(folder, file)) for file in files}
    texts = {file: _settled(file.path, kept[file]) for file in files}
    problems: dict[PipelineFile, str] = {}
    while True:
        # A file as it was keeps its table, although a changed file wants the same table now.
        ordered = sorted(files, key=lambda file: texts[file] != kept[file])
        opened, mistakes = open_all(ordered, env, texts)
        problems = {**mistakes, **problems}
        refused = [file for file in mistakes if kept[file] not in {None, texts[file]}]
        if not refused:
            break
        texts.update({file: kept[file] for file in refused})
    for file in opened:
        text = texts[file]
        if text is not None and text != kept[file]:
            _keep(_place(folder, file), text)
    return Opened({file: opened[file] for file in files if file in opened}, problems)


def _place(folder: Path, file: PipelineFile) -> Path:
    """Where the text of a file is kept: two folders of pipelines can use the same data folder."""
    digest = hashlib.sha256(str(file.path).encode()).hexdigest()[:8]
    return folder / f"{file.name}-{digest}.yaml"


def _keep(path: Path, text: str) -> None:
    try:
        with replacing(path) as new:
            new.write_text(text, encoding="utf-8")
    except ObsError as error:
        # The file itself is valid, so that nothing but a later mistake needs the copy.
        _log.warning("the valid pipeline file is not kept: %s", error)


def _read(path: Path) -> str | None:
    """The content; None if there is none, or it is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _settled(path: Path, before: str | None) -> str | None:
    """The content, once the file rests; the content before if it does not come to rest.

    Without a content before, there is nothing to protect: the file is read at once.
    """
    text = _read(path)
    if before is None or text == before:
        return text
    ends = time.monotonic() + PATIENCE_S
    state = _state(path)
    rested_since = time.monotonic() - _age_s(path)
    while time.monotonic() - rested_since < SETTLED_S:
        if time.monotonic() > ends:
            return before
        time.sleep(_LOOK_S)
        if _state(path) != state:
            state = _state(path)
            rested_since = time.monotonic()
    return _read(path)


def _age_s(path: Path) -> float:
    """Seconds since the last change; 0 if a clock says that it lies in the future."""
    try:
        # The time of the inode: copying programs set the time of the content to an old one.
        return max(0.0, time.time() - path.stat().st_ctime)
    except OSError:
        return 0.0


def _state(path: Path) -> tuple[int, ...]:
    """Numbers that differ after a change of a file; empty without the file."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


class Present:
    """A pipeline as its file says now. Call it for each piece of work, and use its answer to the end.

    Args:
        file: the pipeline file.
        hourly: the pipeline that was opened.
        env: environment of the process.
        refuse: returns why a valid change cannot be followed without a restart; empty if it can be.
            Its arguments are the pipeline before and after. ``refusal`` holds its latest answer.
        log: takes the changes and the mistakes.
    """

    def __init__(
        self,
        file: PipelineFile,
        hourly: HourlyPipeline,
        env: Env = None,
        refuse: Callable[[HourlyPipeline, HourlyPipeline], str] = lambda *_: "",
        log: logging.Logger = _log,
    ) -> None:
        self.file = file
        self.problem = ""
        self.refusal = ""
        self._hourly = hourly
        self._env = env
        self._refuse = refuse
        self._log = log
        self._seen: object = None
        self._lock = threading.Lock()

    def __call__(self) -> HourlyPipeline:
        """The pipeline by the last valid text of its file."""
        with self._lock:
            state = state_of_files(self._env)
            if state != self._seen:
                self._seen = state
                self._look()
            return self._hourly

    def _look(self) -> None:
        try:
            opened = open_valid(self._env)
            new = opened.pipelines.get(self.file)
            problem = opened.problems.get(self.file, "")
        except ConfigurationError as error:
            new, problem = None, str(error)
        if new is None and not problem:
            problem = f"{self.file.path} is missing"
        if new is not None:
            self.refusal = self._refuse(self._hourly, new)
            if self.refusal:
                # No mistake: the file is valid, and is followed after that.
                self._log.warning("%s: %s", self.file.path, self.refusal)
            elif new.config != self._hourly.config:
                self._adopt(new)
        if problem and problem != self.problem:
            self._log.error("%s; the configuration before is used", problem)
        self.problem = problem

    def _adopt(self, new: HourlyPipeline) -> None:
        named = ", ".join(changed_settings(self._hourly.config, new.config))
        at = datetime.now(UTC)
        self._log.info(
            "%s, read at %s, has changed: %s", self.file.path, f"{at:%H:%M:%S} UTC", named
        )
        self._hourly = new


def open_present(
    name: str = "",
    env: Env = None,
    refuse: Callable[[HourlyPipeline, HourlyPipeline], str] = lambda *_: "",
) -> Present:
    """The pipeline of that name, see `find`, by the last valid text of its file.

    Raises:
        ConfigurationError: there is no such pipeline, or its file is wrong and never was valid.
    """
    file = find(name, env)
    opened = open_valid(env)
    if file not in opened.pipelines:
        raise ConfigurationError(opened.problems[file])
    return Present(file, opened.pipelines[file], env, refuse)


def state_of_files(env: Env = None) -> object:
    """A value that differs after a change of any pipeline file."""
    try:
        return [(file.path, _state(file.path)) for file in list_files(env)]
    except ConfigurationError as error:
        return str(error)


def changed_settings(before: BaseModel, after: BaseModel) -> list[str]:
    """The settings that differ, for example ``sample.success_rate 0.1 → 0.2``.

    Only numbers and truth values are shown: a text can be a secret.
    """
    old = dict(_flat(before.model_dump(), ""))
    new = dict(_flat(after.model_dump(), ""))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [_change(key, old.get(key), new.get(key)) for key in sorted(changed)]


def _change(key: str, old: Any, new: Any) -> str:
    if isinstance(old, int | float) and isinstance(new, int | float):
        return f"{key} {old} → {new}"
    return key


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Path → value, of the innermost values."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    if not items:
        yield path, value
    for key, item in items:
        yield from _flat(item, f"{path}.{key}".lstrip("."))


def note_restart(data_dir: Path, reason: str, note: str = RESTART_NOTE) -> None:
    """Note for ``obs status`` why a program must be restarted; an empty reason removes the note.

    Args:
        data_dir: the data folder.
        reason: the reason, which names the program.
        note: name of the note's file; it begins with ``restart_``.
    """
    path = data_dir / note
    if reason != (_read(path) or ""):
        if reason:
            with replacing(path) as new:
                new.write_text(reason, encoding="utf-8")
        else:
            path.unlink(missing_ok=True)


def restart_reason(data_dir: Path) -> str:
    """Why Dagster's code server or a receiver must be restarted; empty if none must be."""
    notes = sorted(data_dir.glob("restart_*"))
    return "; ".join(filter(None, map(_read, notes)))
