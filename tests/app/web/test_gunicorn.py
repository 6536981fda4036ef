"""The ground that app/web/server.py stands on: methods of gunicorn that it overrides, calls, or is called by.

They are nobody's promise. Where one of them has changed, read it beside app/web/server.py, mend what no longer fits,
write its new digest here, and raise the bound in setup.cfg.
"""

from __future__ import annotations

import configparser
import hashlib
import inspect
import types
from importlib.metadata import version

import pytest
from gunicorn import util
from gunicorn.http.parser import Parser
from gunicorn.http.unreader import SocketUnreader, Unreader
from gunicorn.http.wsgi import Response
from gunicorn.workers.base import Worker as BaseWorker
from gunicorn.workers.gthread import TConn, ThreadWorker
from packaging.requirements import Requirement

from app.settings import REPOSITORY
from app.web import server
from app.web.server import Worker

GROUND = {
    # what app.web.server.Worker overrides
    ThreadWorker.__init__: "5681b8b542ea",
    ThreadWorker.init_process: "e4fc63a1a68e",
    ThreadWorker.handle_exit: "b4e7decd4f92",
    ThreadWorker.accept: "f8dcead3dce5",
    ThreadWorker.handle: "ca85c9be3df7",
    ThreadWorker.handle_request: "6d0de5b91910",
    ThreadWorker.finish_request: "616e7bb15a00",
    ThreadWorker.murder_pending: "7bf11f464542",
    ThreadWorker.enqueue_req: "c9f428953d24",
    ThreadWorker.set_accept_enabled: "140150ebfd3c",
    ThreadWorker.wait_for_and_dispatch_events: "ea969b352482",
    # what it calls, and what calls it
    ThreadWorker.on_pending_socket_readable: "2475f7087832",
    ThreadWorker.on_client_socket_readable: "aead1a3ea7b7",
    ThreadWorker.run: "f92c7394d857",
    ThreadWorker._keepalive_after: "4ebdbbc8bf5a",
    TConn.__init__: "c8763d7c6597",
    TConn.init: "5ff3d4ba451c",
    TConn.set_timeout: "03938b63c8bb",
    TConn.close: "6d1c334ed197",
    # how a connection is read, written and, after an error, answered
    SocketUnreader.chunk: "9f62532259f8",
    Unreader.read: "cbfeead6687f",
    Unreader.unread: "8e325744dfca",
    Parser.__next__: "b8536520e958",
    Parser.finish_body: "54c5d0d28c26",
    Response.write: "a13659ff072c",
    Response.close: "1e78fc7777ff",
    BaseWorker.handle_error: "75426448389b",
    util.write: "cd995031295f",
    util.write_error: "bd0143a03c15",
}


@pytest.mark.parametrize("function", GROUND, ids=lambda function: function.__qualname__)
def test_gunicorns_methods_are_those_that_ours_were_written_for(function: types.FunctionType) -> None:
    digest = digest_of(function)
    assert digest == GROUND[function], (
        f"gunicorn {version('gunicorn')} has another {function.__qualname__}: read it beside {server.__name__},"
        f" mend what no longer fits, and write {digest!r} here."
    )


def test_all_that_is_overridden_is_looked_at() -> None:
    overridden = {name for name, value in vars(Worker).items() if inspect.isfunction(value)} & set(dir(ThreadWorker))
    assert {"accept", "finish_request", "handle"} <= overridden
    assert {getattr(ThreadWorker, name) for name in overridden} <= set(GROUND)


def test_only_the_minor_version_that_was_looked_at_is_installed() -> None:
    settings = configparser.ConfigParser()
    settings.read(REPOSITORY / "setup.cfg")
    wanted = settings["options.extras_require"]["web"].split("\n")
    [bound] = [Requirement(each) for each in wanted if each.startswith("gunicorn")]
    major, minor, *_ = version("gunicorn").split(".")
    assert version("gunicorn") in bound.specifier
    assert f"{major}.{int(minor) + 1}" not in bound.specifier


def digest_of(function: types.FunctionType) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]
