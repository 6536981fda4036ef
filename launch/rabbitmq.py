"""A private RabbitMQ node, with its own name, ports, data and epmd, on loopback only. Standard library only."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from launch import debian

PACKAGE = "rabbitmq-server"
SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the script in /usr/sbin insists on Debian's user and directory
ADVICE = (
    "Install RabbitMQ (on Debian: apt-get install rabbitmq-server), set CELERY_BROKER_URL to a running one,"
    " or run `docker compose up` instead."
)

CONFIGURATION = """\
listeners.tcp.local = 127.0.0.1:{port}
distribution.listener.interface = 127.0.0.1
log.console = true
log.console.use_colors = off
log.file = false
log.connection.level = error
load_definitions = definitions.json
max_message_size = 8388608
raft.wal_max_size_bytes = 16000000
"""
NAME = "tolk"  # of the vhost, and of its user
MONITOR = "monitor"  # the user who may only monitor
# The names of the queues and exchanges that Tolk, Celery's events and Celery's remote control make.
NAMES = r"tolk\..+|celeryev(\..+)?|(.+\.)?celery\.pidbox"
RIGHTS = {
    "configure": f"^({NAMES})$",
    "write": f"^({NAMES}|amq\\.default)$",  # a reply goes through the default exchange
    "read": f"^({NAMES})$",
}
NO_RIGHTS = dict.fromkeys(RIGHTS, "^$")


class RabbitMQError(Exception):
    """The broker could not be installed or started; the message says why and what to do."""


class PrivateRabbitMQ:
    """A RabbitMQ node with its data in `directory` and its log in `log`, which is a file or a file descriptor.

    It has one vhost and one user, who has a password and only the rights that Tolk, Celery and Flower need. After
    `kill()`, `start()` brings it back on the same port with the same data.
    """

    node = "tolk@localhost"

    def __init__(self, directory: Path, log: int | IO[bytes], *, timeout: float = 60) -> None:
        self.directory = directory.resolve()
        self.process: subprocess.Popen[bytes] | None = None
        self.log = log
        self._timeout = timeout
        self._epmd: subprocess.Popen[bytes] | None = None
        self._ports: tuple[int, int, int] | None = None

    @staticmethod
    def installed() -> bool:
        return _script() is not None and shutil.which("epmd") is not None

    @staticmethod
    def install(log: int | IO[bytes]) -> None:
        """Installs Debian's package, and stops the node that Debian starts with it. Raises RabbitMQError."""
        try:
            debian.install(PACKAGE, log)
        except debian.PackageError as error:
            raise RabbitMQError(f"{error} {ADVICE}") from error
        debian.stop(PACKAGE, log)
        subprocess.run(["epmd", "-kill"], stdout=log, stderr=log)  # it goes on if another node is registered with it

    @property
    def url(self) -> str:
        """The broker's address, for CELERY_BROKER_URL. Raises RabbitMQError before the first start."""
        if self._ports is None:
            raise RabbitMQError("The broker was not started.")
        return f"amqp://{NAME}:{self._password()}@127.0.0.1:{self._ports[0]}/{NAME}"

    @property
    def epmd_port(self) -> int:
        """The port at which Erlang's tools ask for the node. Raises RabbitMQError before the first start."""
        if self._ports is None:
            raise RabbitMQError("The broker was not started.")
        return self._ports[2]

    def start(self) -> subprocess.Popen[bytes]:
        """Returns the node's process when it accepts connections. Otherwise raises RabbitMQError, with no process
        left."""
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        script, epmd = _script(), shutil.which("epmd")
        if script is None or epmd is None:
            raise RabbitMQError(f"RabbitMQ is missing. {ADVICE}")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)  # messages in queues hold people's texts
        self._ports = self._ports or _free_ports()
        port, distribution, names = self._ports
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.directory),
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory),
            "RABBITMQ_LOG": "warning",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",  # other processes use these cores too
            # With this the script becomes the node (exec) instead of waiting for it, so the child's pid is the node's.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput",
        }
        if self._epmd is None or self._epmd.poll() is not None:  # the node itself would start one that outlives it
            self._epmd = self._spawn([epmd, "-port", str(names), "-address", "127.0.0.1"], environ)
            self._wait("epmd", self._epmd, lambda: _accepts(names))
        with (self.directory / "lock").open("w") as lock:  # the node inherits it: two nodes would ruin the data
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RabbitMQError(f"A RabbitMQ already runs in {self.directory}; end it first.") from None
            self._configure(port)
            self.process = self._spawn([str(script)], environ, lock.fileno())
        self._wait("RabbitMQ", self.process, lambda: _accepts(port))
        return self.process

    def _configure(self, port: int) -> None:
        path = self.directory / "definitions.json"
        # The data of an earlier release have RabbitMQ's user `guest`. Definitions can only lock it out, not delete it.
        old = '"guest"' in path.read_text() if path.exists() else (self.directory / "data").exists()
        path.write_text(json.dumps(definitions(self._password(), lock_guest=old)))
        (self.directory / "rabbitmq.conf").write_text(CONFIGURATION.format(port=port))
        (self.directory / "enabled_plugins").write_text("[].")
        # The cookie gives full control of the node, and the one that Erlang would make can be guessed.
        _keep_secret(self.directory / ".erlang.cookie", secrets.token_hex())

    def _password(self) -> str:
        """The user's password, which is made at first use and kept in a file."""
        path = self.directory / "password"
        if not path.exists() or not path.read_text():
            _keep_secret(path, secrets.token_urlsafe())
        return path.read_text()

    def kill(self) -> None:
        """Sends SIGKILL to the node, as if the machine had crashed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Ends the node and its epmd. Returns when both have ended."""
        for process in (self.process, self._epmd):
            if process is None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(self._timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.process = self._epmd = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, command: list[str], environ: dict[str, str], *inherited: int) -> subprocess.Popen[bytes]:
        """Starts a process in a session of its own, so that a Ctrl-C at the terminal reaches only our caller."""
        return subprocess.Popen(
            command,
            env=environ,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            pass_fds=inherited,
            start_new_session=True,
        )

    def _wait(self, name: str, process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        until = time.monotonic() + self._timeout
        while not ready():
            if process.poll() is not None:
                raise RabbitMQError(f"{name} ended with code {process.returncode} while starting; its log says why.")
            if time.monotonic() > until:
                raise RabbitMQError(f"{name} did not answer within {self._timeout:.0f} s; its log says why.")
            time.sleep(0.05)


def _script() -> Path | None:
    found = shutil.which(SCRIPT) or shutil.which(PACKAGE)
    return Path(found) if found else None


def _keep_secret(path: Path, secret: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(secret)


def definitions(password: str, *, monitor: str | None = None, lock_guest: bool = False) -> dict[str, object]:
    """The vhost and its user, with the rights that it needs, in RabbitMQ's format for import (https://www.rabbitmq.com/docs/definitions).

    `monitor` is the password of another user, who may query the management API but has no access to messages.
    `lock_guest` locks out the user `guest`.
    """
    users = [_user(NAME, password)]
    permissions = [{"user": NAME, "vhost": NAME, **RIGHTS}]
    if monitor is not None:
        users.append(_user(MONITOR, monitor, "monitoring"))
        permissions.append({"user": MONITOR, "vhost": NAME, **NO_RIGHTS})  # without an entry it could not see the vhost
    if lock_guest:
        users.append({**_user("guest", ""), "password_hash": ""})
        permissions.append({"user": "guest", "vhost": "/", **NO_RIGHTS})
    return {"vhosts": [{"name": NAME}], "users": users, "permissions": permissions}


def _user(name: str, password: str, *tags: str) -> dict[str, object]:
    """A user's definition, with the salted SHA-256 of the password."""
    salt = secrets.token_bytes(4)
    digest = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    algorithm = "rabbit_password_hashing_sha256"
    return {"name": name, "password_hash": digest, "hashing_algorithm": algorithm, "tags": list(tags)}


def _free_ports() -> tuple[int, int, int]:
    with socket.socket() as a, socket.socket() as b, socket.socket() as c:
        for each in (a, b, c):
            each.bind(("127.0.0.1", 0))
        first, second, third = (each.getsockname()[1] for each in (a, b, c))
        return first, second, third


def _accepts(port: int) -> bool:
    """Whether something listens on the port. RabbitMQ opens its port last, and does not log such a connection."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
