"""Container logs as the kubelet writes them (CRI): ``2026-11-25T09:00:00.1Z stdout F text``; ``P`` marks a piece.

https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from obs_assets.sources.formats.base import Event, Record, Text, last_line_end, lines_of

_LINE = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^ ]*) (stdout|stderr) ([FP](?::[^ ]*)?)(?: (.*))?",
    re.DOTALL,
)


def _event(line: str) -> Event | None:
    match = _LINE.fullmatch(line)
    return (
        {"time": match[1], "stream": match[2], "log": match[4] or "", "_tag": match[3]}
        if match
        else None
    )


def _records(data: bytes) -> Iterator[Record]:
    for record in lines_of(data, _event):
        event = record.event
        if event is None:
            yield record
        else:
            is_whole = event.pop("_tag").startswith("F")
            yield replace(record, is_whole=is_whole, stream=event["stream"])


FORMAT = Text("cri", looks_like=_LINE, records=_records, ends=last_line_end, text="log")
