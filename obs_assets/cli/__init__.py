"""The command line, ``obs``. Each module holds the commands of a subject; `commands.COMMANDS` lists them.

Exit codes: 0 success, 1 a finding or a failure, 2 wrong arguments or a wrong setting.
"""

from obs_assets.cli.app import app, main

__all__ = ["app", "main"]
