"""Measures what listeners to jobs cost the web tier, and how soon all of them are told of a change.

python -m benchmarks.listeners [LISTENERS]

Gunicorn and the database, a file of SQLite, are real. The listeners, by default 1,000 of 50 addresses, follow 20 jobs,
which nobody translates: in the end they are cancelled.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.overload import ask, post
from benchmarks.path import accepts, free_port, processor, running, verdict, wait

LISTENERS, JOBS, ADDRESSES = 1_000, 20, 50
QUIET = 10.0  # seconds in which nothing happens
SOON = 2.0  # seconds within which all have to be told
SUBMIT = "mutation($input: SubmitInput!) { submitTranslation(input: $input) { id } }"
CANCEL = "mutation($id: ID!) { cancelJob(id: $id) { id } }"
UPDATED = "subscription($id: ID!) { jobUpdated(id: $id) { status progress { done total } } }"
TEXTS = {"texts": ["Bonjour."], "source": "fr", "target": "en"}


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else LISTENERS
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(f"{processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before.")
    with TemporaryDirectory() as directory, ExitStack() as stack:
        log = stack.enter_context(Path(directory, "log").open("wb"))
        port = free_port()
        database = f"sqlite:///{directory}/tolk.sqlite"
        environ = {**os.environ, "TOLK_TRANSLATOR": "echo", "DATABASE_URL": database, "PORT": str(port)}
        web = stack.enter_context(running([sys.executable, "-m", "gunicorn"], environ, log))
        wait(lambda: accepts(port))
        asyncio.run(measure(port, web, count))


async def measure(port: int, web: psutil.Process, count: int) -> None:
    jobs = [(await call(port, SUBMIT, input=TEXTS))["id"] for _ in range(JOBS)]
    cpu, memory = spent(web), resident(web)
    listeners = [await Listener.begin(port, f"127.0.1.{n % ADDRESSES + 1}", jobs[n % JOBS]) for n in range(count)]
    began = spent(web)
    grown = resident(web) - memory
    await asyncio.sleep(QUIET)
    quiet = spent(web)
    moment = time.monotonic()
    ends = asyncio.gather(*(listener.end() for listener in listeners))
    for job in jobs:
        await call(port, CANCEL, id=job)
    told = [end - moment for end in await ends]
    print(f"{count} listeners to {JOBS} jobs, {sum(each.num_threads() for each in family(web))} threads in all:")
    print(f"memory of each: {grown / count / 1e3:.0f} kB")
    print(f"CPU time of each to begin: {1e3 * (began - cpu) / count:.1f} ms")
    print(f"CPU while nothing happens: {100 * (quiet - began) / QUIET:.1f}% of a core")
    print(f"CPU time to tell all of the end: {spent(web) - quiet:.2f} s")
    print(f"the last was told {max(told):.2f} s after the first job was cancelled: {verdict(max(told) < SOON)}")


class Listener:
    """A client that follows a job."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def begin(cls, port: int, address: str, job: str) -> Listener:
        """Returns when the present state has come."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        request = post(json.dumps({"query": UPDATED, "variables": {"id": job}}))
        writer.write(request.replace(b"\r\n", b"\r\nAccept: text/event-stream\r\n", 1))
        await reader.readuntil(b'"QUEUED"')
        return cls(reader, writer)

    async def end(self) -> float:
        """Returns when the end has come, as of time.monotonic. Raises RuntimeError if it has not."""
        if b'"CANCELLED"' not in await self._reader.read():
            raise RuntimeError("A listener was not told of the end.")
        self._writer.close()
        return time.monotonic()


async def call(port: int, query: str, **variables: Any) -> Any:
    """The one field of the answer's data."""
    _, body = await ask(port, post(json.dumps({"query": query, "variables": variables})))
    [data] = json.loads(body)["data"].values()
    return data


def family(web: psutil.Process) -> Sequence[psutil.Process]:
    return [web, *web.children(recursive=True)]


def spent(web: psutil.Process) -> float:
    """The CPU time of all processes, in seconds."""
    return sum(sum(each.cpu_times()[:2]) for each in family(web))


def resident(web: psutil.Process) -> float:
    """The memory of all processes, in bytes."""
    return sum(each.memory_info().rss for each in family(web))


if __name__ == "__main__":
    main()
