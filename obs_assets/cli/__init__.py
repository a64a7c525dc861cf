"""The command line, ``obs``. Each module holds the commands of a subject.

Exit codes: 0 success, 1 a finding or a failure, 2 wrong arguments or a wrong setting.
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
    "obs_assets.cli.inspection",
    "obs_assets.cli.searching",
    "obs_assets.cli.verification",
    "obs_assets.cli.redaction",
    "obs_assets.cli.dead_letters",
    "obs_assets.cli.retention",
    "obs_assets.cli.adoption",
    "obs_assets.cli.alerts",
    "obs_assets.cli.postgres",
    "obs_assets.cli.metrics",
    "obs_assets.cli.s3",
    "obs_assets.cli.backtest",
    "obs_assets.cli.diff",
)
"""Modules of commands, in the order of ``obs --help``. A new module is a row here."""


def load(modules: Iterable[str]) -> None:
    """Import modules; the import adds their commands to `app`."""
    for module in modules:
        import_module(module)


load(MODULES)
