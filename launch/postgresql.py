"""A private PostgreSQL server, with its own port, password and data, on loopback only. Standard library only."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from launch import debian

PACKAGE = "postgresql"
USER = "postgres"  # the user of Debian's package, because PostgreSQL refuses to run as root
BINARIES = Path("/usr/lib/postgresql")  # has a directory for each version, outside of PATH
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/tolk.conf")
NAME = "tolk"  # of the database, and of its owner


class PostgreSQLError(Exception):
    """The server could not be installed or started; the message says why and what to do."""


class PrivatePostgreSQL:
    """A PostgreSQL server with its data in `directory` and its log in `log`, which is a file or a file descriptor.

    If root starts it, it runs as the user of Debian's package, who becomes the owner of the directory and must be able
    to reach it, as under /tmp. After `kill()`, `start()` brings it back on the same port with the same data.
    """

    def __init__(self, directory: Path, log: int | IO[bytes], *, timeout: float = 60) -> None:
        self.directory = directory.resolve()
        self.process: subprocess.Popen[bytes] | None = None
        self._log = log
        self._timeout = timeout
        self._port: int | None = None

    @staticmethod
    def installed() -> bool:
        return _binaries() is not None

    @staticmethod
    def install(log: int | IO[bytes]) -> None:
        """Installs Debian's package, without the cluster that Debian would make and start. Raises PackageError."""
        NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
        NO_CLUSTER.write_text("create_main_cluster = false\n")
        try:
            debian.install(PACKAGE, log)
        finally:
            NO_CLUSTER.unlink()
            with contextlib.suppress(OSError):  # other programs have files there
                NO_CLUSTER.parent.rmdir()

    @property
    def url(self) -> str:
        """The database's address, for DATABASE_URL. Raises PostgreSQLError before the first start."""
        if self._port is None:
            raise PostgreSQLError("The server was not started.")
        password = (self.directory / "password").read_text()
        return f"postgresql+psycopg://{NAME}:{password}@127.0.0.1:{self._port}/{NAME}"

    def start(self) -> None:
        """Returns when the server accepts connections. Otherwise raises PostgreSQLError and leaves no process
        behind."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        binaries = _binaries()
        if binaries is None:
            raise PostgreSQLError("PostgreSQL is missing: install it (on Debian: apt-get install postgresql).")
        self._port = self._port or _free_port()
        data = self.directory / "data"
        if not data.exists():
            self._make(binaries, data)
        settings = {"listen_addresses": "127.0.0.1", "port": self._port, "unix_socket_directories": ""}
        options = [f"--{name}={value}" for name, value in settings.items()]
        self.process = subprocess.Popen([binaries / "postgres", "-D", data, *options], **self._conditions())
        until = time.monotonic() + self._timeout
        while not self._ready(data):
            if self.process.poll() is not None:
                raise PostgreSQLError(f"PostgreSQL ended with code {self.process.returncode}; its log says why.")
            if time.monotonic() > until:
                raise PostgreSQLError(f"PostgreSQL did not answer within {self._timeout:.0f} s; its log says why.")
            time.sleep(0.02)

    def _make(self, binaries: Path, data: Path) -> None:
        """Makes a cluster with one database and one user with a password. It is named `data` when it is complete."""
        self.directory.mkdir(parents=True, exist_ok=True)
        password = self.directory / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe())
        if os.geteuid() == 0:
            account = pwd.getpwnam(USER)
            for path in (self.directory, password):
                os.chown(path, account.pw_uid, account.pw_gid)
        new = data.with_name("new")
        who = [f"--username={NAME}", f"--pwfile={password}", "--auth=scram-sha-256"]
        self._run([binaries / "initdb", "-D", new, *who, "--encoding=UTF8", "--locale=C.UTF-8"])
        self._run([binaries / "postgres", "--single", "-D", new, "postgres"], f"CREATE DATABASE {NAME}\n".encode())
        new.rename(data)

    def _run(self, command: list[str | Path], said: bytes = b"") -> None:
        conditions = self._conditions()
        del conditions["stdin"]
        if subprocess.run(command, input=said, **conditions).returncode:
            raise PostgreSQLError(f"{command[0]} failed; its log says why.")

    def _conditions(self) -> dict[str, Any]:
        """The arguments for subprocess: PostgreSQL's programs run as a user that they accept, in a session of their
        own, and with none of our environment."""
        user = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}
        return {
            **user,
            "env": {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(self.directory)},
            "cwd": self.directory,
            "stdin": subprocess.DEVNULL,
            "stdout": self._log,
            "stderr": self._log,
            "start_new_session": True,
        }

    def _ready(self, data: Path) -> bool:
        """Whether the server takes connections, which pg_ctl finds out in the same way.

        The open port does not tell: it is open before the server has recovered from a crash. The server writes
        postmaster.pid after it has made the file, so the file may be empty or incomplete.
        """
        try:
            lines = (data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return self.process is not None and lines[:1] == [str(self.process.pid)] and lines[7:] == ["ready   "]

    def kill(self) -> None:
        """Sends SIGKILL to the server and all of its processes, as if the machine had crashed."""
        if self.process is None:
            return
        # The server cannot start again while one of its processes still holds their shared memory.
        pids = [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]
        descriptors = [os.pidfd_open(pid) for pid in pids]
        self.process.kill()
        for descriptor in descriptors:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [])
            os.close(descriptor)
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """Ends the server and its connections. Returns when it has ended."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _binaries() -> Path | None:
    """The directory of the programs of the newest version that is installed; None if there is none."""
    versions = [path for path in BINARIES.glob("*/bin") if (path / "postgres").exists()]
    return max(versions, key=lambda path: float(path.parent.name), default=None)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
