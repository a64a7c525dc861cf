"""The command line, ``obs``: servers, configuration, and questions to an hour. One module a subject.

Exit codes: 0 all is well, 1 a finding, 2 misuse or a wrong setting.
"""

from collections.abc import Iterable
from importlib import import_module

from obs_assets.cli.app import app, main

__all__ = ["MODULES", "app", "load", "main"]

MODULES = (
    "obs_assets.cli.servers",
    "obs_assets.cli.dev",
    "obs_assets.cli.connections",
    "obs_assets.cli.running",
    "obs_assets.cli.configuration",
    "obs_assets.cli.verification",
    "obs_assets.cli.redaction",
    "obs_assets.cli.dead_letters",
    "obs_assets.cli.retention",
    "obs_assets.cli.alerts",
    "obs_assets.cli.postgres",
    "obs_assets.cli.metrics",
    "obs_assets.cli.s3",
    "obs_assets.cli.backtest",
    "obs_assets.cli.diff",
)
"""The modules whose commands ``obs`` has, in the order of ``obs --help``. A new module is a row here."""


def load(modules: Iterable[str]) -> None:
    """Import modules, which adds their commands to `app`."""
    for module in modules:
        import_module(module)


load(MODULES)
