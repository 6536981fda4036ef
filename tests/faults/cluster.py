"""A cluster of three nodes of RabbitMQ, each with its own data and ports, on loopback."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from launch.rabbitmq import PrivateRabbitMQ

NAMES = [f"tolk{number}@localhost" for number in (1, 2, 3)]
# As docs/operations.md recommends.
CONFIGURATION = """\
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = tolk1@localhost
cluster_formation.classic_config.nodes.2 = tolk2@localhost
cluster_formation.classic_config.nodes.3 = tolk3@localhost
cluster_partition_handling = pause_minority
"""


class Node(PrivateRabbitMQ):
    """A node. All nodes share the cookie, the user's password and the epmd, whose port is `names`."""

    def __init__(
        self, directory: Path, log: int, *, node: str, ports: tuple[int, int, int], cookie: str, password: str
    ) -> None:
        super().__init__(directory, log, timeout=120)
        self.node = node
        self._ports = ports
        self._cookie = cookie
        (directory / "password").write_text(password)

    def _configure(self, port: int) -> None:
        super()._configure(port)
        (self.directory / ".erlang.cookie").write_text(self._cookie)
        with (self.directory / "rabbitmq.conf").open("a") as configuration:
            configuration.write(CONFIGURATION)


class Cluster:
    """The cluster; its `url` names all nodes. The first node starts the cluster, then the others join it."""

    def __init__(self, new_broker: Callable[..., PrivateRabbitMQ], free_port: Callable[[], int]) -> None:
        names, cookie, password = free_port(), secrets.token_hex(), secrets.token_urlsafe()
        self.nodes = [
            new_broker(
                partial(Node, node=name, ports=(free_port(), free_port(), names), cookie=cookie, password=password)
            )
            for name in NAMES
        ]

    @property
    def url(self) -> str:
        return ";".join(node.url for node in self.nodes)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
