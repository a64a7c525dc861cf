"""Documents say what is so."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_test_that_the_list_of_faults_names_is_there() -> None:
    """Who looks for the proof of a promise finds it."""
    missing, path = [], ""
    for named in re.findall(r"`([\w/]*\.py)?::(test_\w+)`", (ROOT / "docs" / "faults.md").read_text()):
        path = named[0] or path
        if f"def {named[1]}(" not in (ROOT / "obs_assets_tests" / path).read_text():
            missing.append("::".join((path, named[1])))
    assert missing == []
