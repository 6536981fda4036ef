"""The translations of a job as a file, which is written while it is read: TSV for spreadsheets, NDJSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from app.jobs.job import Job, Segment
from app.jobs.submission import Jobs
from tasks.contract.reply import Failure

SEGMENTS = 200  # texts that are in memory at a time
HEADER = "text\ttranslation\terror\n"
ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

Line = Callable[[Segment, Failure | None], str]


def lines(jobs: Jobs, job: Job, form: str) -> Iterator[str]:
    """The lines of a file in the form `tsv` or `ndjson`, one for each text, in order.

    A text without an outcome has neither a translation nor an error.
    """
    line: Line = _tsv if form == "tsv" else _ndjson
    if form == "tsv":
        yield HEADER
    after, more = -1, True
    while more:
        segments, more = jobs.segments(job, SEGMENTS, after)
        after = segments[-1].position if segments else after
        yield "".join(line(each, each.result.error if each.result else job.abandoned) for each in segments)


def _tsv(segment: Segment, error: Failure | None) -> str:
    """Three columns. Tabs, line breaks and backslashes within one are escaped by a backslash."""
    translation = segment.result.text if segment.result else None
    columns = (segment.text, translation or "", error.code if error else "")
    return "\t".join(each.translate(ESCAPES) for each in columns) + "\n"


def _ndjson(segment: Segment, error: Failure | None) -> str:
    result, origin = segment.result, segment.origin
    fields: dict[str, Any] = {
        "position": segment.position,
        "original": segment.text,
        "text": result.text if result else None,
        "score": result.score if result else None,
        "flags": [flag.value for flag in result.flags] if result else [],
        "source": origin.source,
        "model": origin.model,
        "version": origin.version,
        "error": {"code": error.code, "message": error.message} if error else None,
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"
