"""Where pipelines are found, under which name their data lies, and how a mistake in one is told."""

from pathlib import Path

import pytest

import obs_assets
from obs_assets.errors import ConfigurationError, MissingFrameError
from obs_assets.hourly.pipeline import COMPONENT_TYPE
from obs_assets.hourly.pipeline_files import (
    PACKAGED_DIR,
    VARIABLE,
    find,
    list_files,
    open_all,
    open_pipeline,
)
from obs_assets.hourly.read_hour import read_hour


def write_pipeline(folder: Path, name: str, attributes: str = "{}") -> Path:
    """A pipeline file below a folder of pipelines."""
    (folder / name).mkdir(parents=True)
    (folder / name / "defs.yaml").write_text(
        f"type: {COMPONENT_TYPE}\nattributes: {attributes}\n"
    )
    return folder / name / "defs.yaml"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no variable."""
    (folder := tmp_path / "here").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv(VARIABLE, raising=False)
    return folder


def test_without_a_pipeline_of_ones_own_the_packaged_example_is_used(here: Path) -> None:
    """Its folder has a speaking name; its data keeps the place, and its assets the names, that users have."""
    (file,) = list_files({})
    assert (file.name, file.path) == ("agents", PACKAGED_DIR / "agents" / "defs.yaml")
    hourly = open_pipeline(env={"OBS_DATA_DIR": str(here / "data")})
    assert hourly.name == "pipeline"
    assert hourly.store.root == here / "data" / "pipelines" / "pipeline"
    assert hourly.ledger_name("webhook_alerts") == "webhook_alerts"


def test_a_folder_pipelines_below_the_working_directory_comes_before_it(here: Path) -> None:
    """And a named folder before that."""
    own = write_pipeline(here / "pipelines", "shop")
    assert [file.path for file in list_files({})] == [own]
    named = write_pipeline(here / "elsewhere", "audit")
    assert [file.path for file in list_files({VARIABLE: "elsewhere"})] == [named]
    assert [file.path for file in list_files({VARIABLE: ""})] == [own]


def test_a_folder_called_pipelines_that_holds_none_is_passed_over(here: Path) -> None:
    """Many projects have a folder of that name."""
    (here / "pipelines" / "ci").mkdir(parents=True)
    (here / "pipelines" / "ci" / "build.yaml").touch()
    assert find(env={}).name == "agents"


@pytest.mark.parametrize("there", ["defs.yaml", "shop/defs.yml"])
def test_a_file_at_the_wrong_place_is_no_reason_to_use_another_pipeline(
    here: Path, there: str
) -> None:
    """The message names the file and where it should be."""
    file = here / "pipelines" / there
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(
        ConfigurationError, match=rf"{there} is in the wrong place: .*/pipelines/NAME/defs.yaml"
    ):
        list_files({})


def test_a_named_folder_that_is_missing_or_empty_is_an_error(here: Path) -> None:
    """It names the variable: never is another pipeline used instead."""
    with pytest.raises(
        ConfigurationError, match=rf"{VARIABLE} names {here}/nowhere, which is no folder"
    ):
        list_files({VARIABLE: "nowhere"})
    (here / "empty").mkdir()
    with pytest.raises(
        ConfigurationError, match=rf"{VARIABLE} names {here}/empty, which holds no pipeline"
    ):
        list_files({VARIABLE: "empty"})


def test_a_name_chooses_and_without_one_the_choice_must_be_clear(here: Path) -> None:
    """The only pipeline, or the one without a prefix; a pipeline's stored name, as older scripts have it, will do."""
    shop, audit = (write_pipeline(here / "pipelines", name) for name in ("shop", "audit"))
    assert find("audit", {}).path == audit
    with pytest.raises(
        ConfigurationError,
        match=r"several pipelines in .*choose with --pipeline from audit, shop",
    ):
        find("", {})
    with pytest.raises(
        ConfigurationError,
        match=r"no pipeline is called 'shpo'; in .*/pipelines there are audit, shop",
    ):
        find("shpo", {})
    main = write_pipeline(here / "pipelines", "main", '{asset_prefix: ""}')
    assert find("", {}).path == find("pipeline", {}).path == find("main", {}).path == main
    shop.unlink()
    audit.unlink()
    assert find("", {}).path == main


def test_a_prefix_outlives_the_name_of_its_folder(here: Path) -> None:
    """A renamed folder keeps its data and its assets' names where asset_prefix says the old one."""
    write_pipeline(here / "pipelines", "store", "{asset_prefix: shop}")
    assert open_pipeline(env={}).name == open_pipeline("shop", env={}).name == "shop"


def test_each_mistake_is_the_pipelines_own(here: Path) -> None:
    """A name that assets cannot have, one that is taken, and a file that is wrong: the others open."""
    pipelines = here / "pipelines"
    write_pipeline(pipelines, "first", '{asset_prefix: ""}')
    write_pipeline(pipelines, "my-shop")
    write_pipeline(pipelines, "pipeline")
    wrong = write_pipeline(pipelines, "wrong", "{filtr: {}}")
    write_pipeline(pipelines, "zoo")
    opened, problems = open_all(list_files({}), {})
    assert [file.name for file in opened] == ["first", "zoo"]
    told = {file.name: problem for file, problem in problems.items()}
    assert "called 'my-shop'" in told["my-shop"]
    assert "'my_shop'" in told["my-shop"]
    assert (
        f"{pipelines}/first/defs.yaml has the name or asset_prefix pipeline already"
        in told["pipeline"]
    )
    assert (
        told["wrong"] == f"{wrong}:2: pipeline: unknown option 'filtr'; did you mean 'filter'?"
    )


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        ("{type: postgres}", "{type: postgresql}", "the table public.events"),
        ("{type: s3, prefix: a}", "{type: s3, prefix: a, name: more}", "the prefix a"),
        ("{type: s3}", "{type: s3, prefix: other}", ""),
        ("{type: postgres}", "{type: postgres, enabled: false}", ""),
        ("{type: postgres, database: a}", "{type: postgres, database: b}", ""),
        ("{type: webhook}", "{type: webhook}", ""),
    ],
)
def test_two_pipelines_do_not_write_to_one_place(
    here: Path, first: str, second: str, taken: str
) -> None:
    """A folder that was copied to get a second pipeline would replace the hours of the first one."""
    one = write_pipeline(here / "pipelines", "one", f"{{destinations: [{first}]}}")
    two = write_pipeline(here / "pipelines", "two", f"{{destinations: [{second}]}}")
    problems = list(open_all(list_files({}), {})[1].values())
    expected = f"{two}: {one} has {taken} already: give each its own"
    assert problems == ([expected] if taken else [])


def test_read_hour_finds_the_same_pipelines(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook in the folder of one's own pipelines reads their hours."""
    write_pipeline(here / "pipelines", "shop")
    monkeypatch.setenv("OBS_DATA_DIR", str(here / "data"))
    assert obs_assets.read_hour is read_hour
    with pytest.raises(MissingFrameError):
        read_hour("raw_events", "2025-12-04-10:00", "shop")
    assert (here / "data" / "pipelines" / "shop").is_dir()
