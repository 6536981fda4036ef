"""The private PostgreSQL: it keeps committed data, and admits nobody without the password."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from launch.postgresql import PrivatePostgreSQL

pytestmark = pytest.mark.postgresql


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), connect_timeout=10)


def test_it_lets_in_its_owner_alone_and_only_on_loopback(postgresql: PrivatePostgreSQL) -> None:
    with connect(postgresql.url) as connection:
        assert connection.execute("SELECT current_user, current_database()").fetchone() == ("tolk", "tolk")
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    password = postgresql.url.split(":")[2].partition("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(postgresql.url.replace(password, "wrong"))
    server = psutil.Process(postgresql.process.pid)
    assert server.username() != "root"
    assert {each.laddr.ip for each in server.net_connections("all") if each.status == "LISTEN"} == {"127.0.0.1"}
    assert server.net_connections("unix") == []
    for process in [server, *server.children()]:
        assert password not in " ".join([*process.cmdline(), *process.environ().values()])
    kept = postgresql.directory / "password"
    assert kept.stat().st_mode & 0o077 == 0
    assert postgresql.directory.stat().st_mode & 0o077 == 0


def test_what_was_committed_survives_a_kill(new_postgresql: Callable[[], PrivatePostgreSQL]) -> None:
    with new_postgresql() as server:
        with connect(server.url) as connection:
            connection.execute("CREATE TABLE kept (text text)")
        with connect(server.url) as connection:
            connection.execute("INSERT INTO kept VALUES ('é')")
            connection.commit()
            connection.execute("INSERT INTO kept VALUES ('in the middle')")
            url, children = server.url, psutil.Process(server.process.pid).children()
            server.kill()
            assert not any(child.is_running() and child.status() != "zombie" for child in children)
            server.start()
            with pytest.raises(psycopg.OperationalError):
                connection.commit()
        assert server.url == url
        with contextlib.closing(connect(url)) as connection:
            assert connection.execute("SELECT text FROM kept").fetchall() == [("é",)]
            server.stop()  # does not wait for connected clients
    assert not [process for process in psutil.process_iter() if of(process, server.directory)]


def test_a_server_whose_pid_file_is_still_empty_is_not_ready(tmp_path: Path) -> None:
    server = PrivatePostgreSQL(tmp_path, subprocess.DEVNULL)
    (tmp_path / "postmaster.pid").touch()
    with subprocess.Popen(["true"]) as server.process:
        assert not server._ready(tmp_path)


def of(process: psutil.Process, directory: Path) -> bool:
    try:
        return process.pid != os.getpid() and any(str(directory) in word for word in process.cmdline())
    except psutil.Error:
        return False
