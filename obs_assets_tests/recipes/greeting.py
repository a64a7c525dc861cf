"""An invented command: ``obs greet``."""

from obs_assets.cli.app import AsJson, app, out, print_json


@app.command()
def greet(name: str, as_json: AsJson = False) -> None:
    """Greet a person."""
    if as_json:
        print_json({"greeted": name})
    else:
        out.print(f"good day, {name}")
