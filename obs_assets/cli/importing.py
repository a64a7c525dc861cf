"""``obs import``: a pipeline file from the configuration of another collector."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from obs_assets.cli.app import AsJson, app, counted, out, print_json
from obs_assets.cli.configuration import prefix_of, refuse_wrong_name, write_new
from obs_assets.hourly import pipeline
from obs_assets.hourly.pipeline_files import FILE_NAME, OWN_DIR
from obs_assets.migration import Draft, read_fluent_bit, read_vector

imports = typer.Typer(
    no_args_is_help=True,
    help="Write a pipeline file from the configuration of Vector or Fluent Bit.",
)
app.add_typer(imports, name="import")

File = Annotated[Path, typer.Argument(metavar="FILE", help="The configuration.")]
Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="DIR/pipelines/NAME/defs.yaml is written.")
]
Name = Annotated[str, typer.Option("--name", help="Pipeline name.")]


@imports.command()
def vector(
    file: File, folder: Folder = Path(), name: Name = "events", as_json: AsJson = False
) -> None:
    """Read a configuration of Vector: YAML, TOML or JSON."""
    _import(read_vector, file, folder, name, as_json=as_json)


@imports.command("fluent-bit")
def fluent_bit(
    file: File, folder: Folder = Path(), name: Name = "events", as_json: AsJson = False
) -> None:
    """Read a configuration of Fluent Bit: classic or YAML."""
    _import(read_fluent_bit, file, folder, name, as_json=as_json)


def _import(
    read: Callable[[Path], Draft], file: Path, folder: Path, name: str, *, as_json: bool
) -> None:
    refuse_wrong_name(name)
    draft = read(file)
    path = folder.absolute() / OWN_DIR / name / FILE_NAME
    text = draft.text(prefix_of(path.parents[1], name))
    # Written only if it can be loaded.
    pipeline.load(path, {}, text)
    write_new(path, text)
    if as_json:
        print_json({"wrote": [str(path)], "lacking": draft.lacking})
        return
    out.print(f"wrote {path}")
    if draft.lacking:
        out.print(f"{counted(len(draft.lacking), 'part')} without a counterpart:")
    for sentence in draft.lacking:
        out.print(f"  - {sentence}")
    out.print("Next: obs validate")
