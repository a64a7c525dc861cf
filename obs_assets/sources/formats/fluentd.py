"""Lines of containers as Fluentd and Fluent Bit write them, with a mark on each piece of a cut line.

Docker's log driver ``fluentd`` (also AWS FireLens) cuts a line after 16 KiB. It writes ``partial_message``, and in
newer versions ``partial_id``, ``partial_ordinal`` and ``partial_last``. Fluent Bit copies the mark of the kubelet,
``P`` or ``F``, into ``logtag`` or ``_p``. https://docs.docker.com/engine/logging/drivers/fluentd/
"""

from obs_assets.sources.formats.base import Pieces, field_text, is_last_piece

_MARKS = ("partial_message", "partial_id", "partial_ordinal", "partial_last")
_TAGS = ("logtag", "_p")

FORMATS = tuple(
    Pieces(
        "fluentd",
        text=text,
        stream=" || ".join(
            [field_text("partial_id", "container_id"), field_text("source", "stream")]
        ),
        is_whole=f"NOT starts_with({field_text(*_TAGS)}, 'P') AND "
        f"({is_last_piece('partial_message', 'partial_last')})",
        keys=frozenset({text}),
        marks=frozenset({"partial_message", "container_id", *_TAGS}),
        marks_of_pieces=(*_MARKS, *_TAGS),
    )
    for text in ("log", "message")
)
