"""The command line, ``obs``: servers, configuration, and questions to an hour. One module a subject.

Exit codes: 0 all is well, 1 a finding, 2 misuse or a wrong setting.
"""

from obs_assets.cli import (  # isort: skip - this is the order of --help
    servers,
    dev,
    connections,
    running,
    configuration,
    verification,
    redaction,
    dead_letters,
    retention,
    alerts,
    postgres,
    metrics,
    s3,
    backtest,
    diff,
)
from obs_assets.cli.app import app, main

__all__ = [
    "alerts",
    "app",
    "backtest",
    "configuration",
    "connections",
    "dead_letters",
    "dev",
    "diff",
    "main",
    "metrics",
    "postgres",
    "redaction",
    "retention",
    "running",
    "s3",
    "servers",
    "verification",
]
