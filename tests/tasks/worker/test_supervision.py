from __future__ import annotations

import os
import socket
import threading
from types import SimpleNamespace

import pytest
from celery import signals

from tasks.worker.supervision import Supervision


def test_a_supervisor_is_gone_too_that_has_not_read_what_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(os, "kill", lambda *_: ended.set())
    ours, theirs = socket.socketpair()
    Supervision(SimpleNamespace(), supervisor=theirs.detach()).start(None)
    signals.worker_ready.send(sender=None)
    ours.close()
    assert ended.wait(30)
