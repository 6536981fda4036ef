"""Makes the secrets of docker-compose.yml's services at first use, keeps them, and gives each service its own.

    python -m launch.secrets DIRECTORY

DIRECTORY gets a directory for each service, which is a volume; its files are written again each time. The passwords in
them are kept in DIRECTORY/kept, which only root can read. Standard library only.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path

from launch.rabbitmq import MONITOR, NAME, definitions

# The ids of the users that read the secrets: in Tolk's images, in Grafana's, and root, as which PostgreSQL's starts.
TOLK, GRAFANA, ROOT = 10001, 472, 0


def make(directory: Path) -> None:
    """Writes the files of all services; makes the passwords that do not exist yet."""
    kept = directory / "kept"
    kept.mkdir(mode=0o700, exist_ok=True)
    broker, monitor, database, flower, grafana, webhook = (
        keep(kept / name) for name in ("broker", "monitor", "database", "flower", "grafana", "webhook")
    )
    broker_url = f"amqp://{NAME}:{broker}@rabbitmq:5672/{NAME}"
    # Everybody in the container may read this file, because the id of RabbitMQ's user may change. It has only hashes.
    write(directory / "rabbitmq" / "definitions.json", json.dumps(definitions(broker, monitor=monitor)), ROOT, 0o444)
    write(directory / "postgres" / "password", database, ROOT)
    write(directory / "web" / "broker-url", broker_url, TOLK)
    write(directory / "web" / "database-url", f"postgresql://{NAME}:{database}@postgres/{NAME}", TOLK)
    write(directory / "web" / "webhook-secret", webhook, TOLK)
    write(directory / "worker" / "broker-url", broker_url, TOLK)
    write(directory / "flower" / "broker-url", broker_url, TOLK)
    write(directory / "flower" / "broker-api", f"http://{MONITOR}:{monitor}@rabbitmq:15672/api/", TOLK)
    write(directory / "flower" / "login", f"{NAME}:{flower}", TOLK)
    write(directory / "grafana" / "password", grafana, GRAFANA)


def keep(path: Path) -> str:
    """The secret in the file, which gets a random one at first use."""
    if not path.exists():
        write(path, secrets.token_urlsafe(), ROOT)
    return path.read_text()


def write(path: Path, text: str, owner: int, mode: int = 0o400) -> None:
    """Writes a file atomically. If the process is root's, the file is given to the user `owner`."""
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(f".{path.name}")
    new.unlink(missing_ok=True)
    with open(new, "w", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, mode)) as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    if os.geteuid() == ROOT:
        os.chown(new, owner, owner)
    new.replace(path)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
