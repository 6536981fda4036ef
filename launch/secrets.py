"""What the services of docker-compose.yml have to know: made at first use, kept, and handed to each service alone.

    python -m launch.secrets DIRECTORY

DIRECTORY has a directory for every service, a volume of its own, whose files are written anew each time; the passwords
that they are made of are in DIRECTORY/kept, which is for nobody but root. Standard library only.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path

from launch.rabbitmq import MONITOR, NAME, definitions

# Who reads them: the user of our own images, that of Grafana's, and root, as whom PostgreSQL's starts.
TOLK, GRAFANA, ROOT = 10001, 472, 0


def make(directory: Path) -> None:
    kept = directory / "kept"
    kept.mkdir(mode=0o700, exist_ok=True)
    broker, monitor, database, flower, grafana = (
        keep(kept / name) for name in ("broker", "monitor", "database", "flower", "grafana")
    )
    broker_url = f"amqp://{NAME}:{broker}@rabbitmq:5672/{NAME}"
    # Whoever may enter this volume may read it, for the number of RabbitMQ's user is its image's affair; it has hashes.
    write(directory / "rabbitmq" / "definitions.json", json.dumps(definitions(broker, monitor=monitor)), ROOT, 0o444)
    write(directory / "postgres" / "password", database, ROOT)
    write(directory / "web" / "broker-url", broker_url, TOLK)
    write(directory / "web" / "database-url", f"postgresql://{NAME}:{database}@postgres/{NAME}", TOLK)
    write(directory / "worker" / "broker-url", broker_url, TOLK)
    write(directory / "flower" / "broker-url", broker_url, TOLK)
    write(directory / "flower" / "broker-api", f"http://{MONITOR}:{monitor}@rabbitmq:15672/api/", TOLK)
    write(directory / "flower" / "login", f"{NAME}:{flower}", TOLK)
    write(directory / "grafana" / "password", grafana, GRAFANA)


def keep(path: Path) -> str:
    """What is in the file: random, from the first time on."""
    if not path.exists():
        write(path, secrets.token_urlsafe(), ROOT)
    return path.read_text()


def write(path: Path, text: str, owner: int, mode: int = 0o400) -> None:
    """Whole or not at all. As root gives it to `owner`; anybody else keeps it."""
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
