"""A real RabbitMQ with the files of compose/rabbitmq."""

from __future__ import annotations

import shutil
from pathlib import Path

from launch.rabbitmq import PrivateRabbitMQ
from tests.conftest import REPOSITORY

COMPOSE = REPOSITORY / "compose"


class ComposeRabbitMQ(PrivateRabbitMQ):
    """RabbitMQ with the files of compose/rabbitmq, but with other ports, on loopback, and with other secrets."""

    secrets: Path
    management: int
    prometheus: int

    def _configure(self, port: int) -> None:
        given = (COMPOSE / "rabbitmq" / "rabbitmq.conf").read_text().replace("/run/secrets", f"{self.secrets}/rabbitmq")
        ours = f"""
            listeners.tcp.local = 127.0.0.1:{port}
            management.tcp.ip = 127.0.0.1
            management.tcp.port = {self.management}
            prometheus.tcp.ip = 127.0.0.1
            prometheus.tcp.port = {self.prometheus}
        """
        (self.directory / "rabbitmq.conf").write_text(given + ours)
        shutil.copy(COMPOSE / "rabbitmq" / "enabled_plugins", self.directory)

    def located(self, secret: str) -> str:
        """The address of the service `rabbitmq` rewritten to this server's address."""
        ours = {"5672": self.url.rpartition(":")[2].partition("/")[0], "15672": str(self.management)}
        before, _, after = secret.partition("@rabbitmq:")
        port, _, path = after.partition("/")
        return f"{before}@127.0.0.1:{ours[port]}/{path}"
