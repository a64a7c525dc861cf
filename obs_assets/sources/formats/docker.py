"""Docker's json-file: ``{"log": "…\\n", "stream": "stdout", "time": "…"}``.

Docker cuts a line after 16 KiB. If ``log`` does not end with a newline, the line continues in the next piece of its
stream.
"""

from obs_assets.sources.formats.base import Pieces, field_text

FORMAT = Pieces(
    "docker",
    text="log",
    stream=field_text("stream"),
    is_whole=f"ends_with({field_text('log')}, chr(10))",
    keys=frozenset({"log", "stream", "time"}),
    others=frozenset({"attrs"}),
)
