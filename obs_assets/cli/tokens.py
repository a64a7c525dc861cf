"""``obs tokens``: who may use ``obs serve`` with ``OBS_API_AUTH=token``."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from obs_assets import settings
from obs_assets.api.tokens import (
    add_token,
    read_tokens,
    revoke_token,
    scopes_of,
    tokens_path,
)
from obs_assets.cli.app import AsJson, app, out, print_json

tokens = typer.Typer(no_args_is_help=True, help="Tokens of clients of the search API.")
app.add_typer(tokens, name="tokens")

Name = Annotated[str, typer.Argument(help="Who uses the token, for example grafana.")]


@tokens.command()
def add(
    name: Name,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", help="read, tail or write; may be repeated. Default: read, tail."
        ),
    ] = None,
    days: Annotated[
        int, typer.Option("--days", min=0, help="Days until it ends; 0: never.")
    ] = 365,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it. It is shown once: only its hash is stored."""
    path = tokens_path(settings.load())
    scopes = scopes_of(scope or ["read", "tail"])
    token = add_token(path, name, scopes, datetime.now(UTC), days=days or None)
    if as_json:
        print_json({"name": name, "token": token})
        return
    typer.echo(token)
    # To standard error, so that a script can read the token alone.
    typer.echo(
        f"token {name} ({', '.join(scopes)}) is in {path} as a hash; it is not shown again",
        err=True,
    )


@tokens.command("list")
def list_tokens(as_json: AsJson = False) -> None:
    """List names, scopes and ends of the tokens."""
    path = tokens_path(settings.load())
    found = read_tokens(path)
    if as_json:
        # A hash is of no use to a reader, and it should not be copied into logs.
        print_json([token.model_dump(exclude={"sha256"}) for token in found])
        return
    now = datetime.now(UTC)
    for token in found:
        ends = "never ends"
        if token.expires_at:
            ended = "ended" if not token.is_valid(now) else "ends"
            ends = f"{ended} {token.expires_at:%Y-%m-%d %H:%M} UTC"
        out.print(f"{token.name:>18}  {', '.join(token.scopes)}, {ends}", highlight=False)
    if not found:
        out.print(f"no tokens in {path}", highlight=False)


@tokens.command()
def revoke(name: Name, as_json: AsJson = False) -> None:
    """Remove a token. A running server refuses it from the next request on."""
    revoke_token(tokens_path(settings.load()), name)
    if as_json:
        print_json({"revoked": name})
    else:
        out.print(f"token {name} is revoked", highlight=False)
