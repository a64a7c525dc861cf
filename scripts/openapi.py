"""Write docs/openapi.json: the OpenAPI document of `obs serve`. A test compares it with the routes.

python scripts/openapi.py          # write the file
python scripts/openapi.py --print  # print it
"""

import json
import sys
from pathlib import Path

from obs_assets.api.app import make_routes
from obs_assets.api.document import document

FILE = Path(__file__).parent.parent / "docs" / "openapi.json"


def content() -> str:
    """The document as text, without the version of the package: a release changes no path."""
    made = document(make_routes({}))
    made["info"]["version"] = "1"
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if "--print" in sys.argv:
        print(content())
    else:
        FILE.write_text(content())
