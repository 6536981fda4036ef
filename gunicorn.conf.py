"""Plain `gunicorn` serves the web tier; README.md lists the settings."""

import os
import re
import runpy
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.settings import THREADS, Settings
from tasks.environment import SettingsError
from tasks.registry.entry import RegistryError
from tasks.registry.file import load_registry


def load() -> Settings:
    """All that a worker reads, too: where it cannot be used, gunicorn is to say so, and no worker to begin."""
    settings = Settings.from_env(os.environ)
    load_registry(settings.models)
    if settings.translator == "celery":
        runpy.run_path(str(Path(__file__).with_name("celeryconfig.py")))
    return settings


def on_starting(server: Any) -> None:
    """A reload to what cannot be used changes nothing: gunicorn, left to itself, would end."""
    reload = server.reload

    def reload_checked() -> None:
        try:
            load()
        except (SettingsError, RegistryError) as error:
            server.log.error("Not reloaded: %s", error)
        else:
            reload()

    server.reload = reload_checked


def when_ready(_server: Any) -> None:
    """No worker runs yet, and a reload comes after. A successor (SIGUSR2) may have inherited the directory of its
    predecessor, which ends with that one."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if settings.metrics is not None and (not directory or maker(directory) is not None):
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=f"tolk-metrics-{os.getpid()}-")


def on_exit(_server: Any) -> None:
    """What an operator's own directory holds is not ours to delete."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    if maker(directory) == os.getpid():
        shutil.rmtree(directory, ignore_errors=True)


def maker(directory: str) -> int | None:
    """The master that made a directory of metrics; None of an operator's own."""
    found = re.match(r"tolk-metrics-(\d+)-", Path(directory).name)
    return int(found[1]) if found else None


try:  # here, once: a worker that cannot boot would be started again and again
    settings = load()
except (SettingsError, RegistryError) as error:
    sys.exit(f"tolk: {error}")

wsgi_app = "app:create_app()"
bind = [f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"]
if settings.metrics is not None:
    bind.append(str(settings.metrics))

# A request waits most of its time, so threads, and more of them than may wait for translations at once: others refuse
# what is too much, and tell how the service does. The connection to the broker is a process's own, so no preloading.
worker_class = "app.web.server.Worker"  # gthread's, with deadlines for slow clients
workers = 2
threads = THREADS
worker_connections = 800  # of a process, idle ones too: with the broker's and the database's, within 1024 files
preload_app = False

# Both outlast the longest request that is allowed.
timeout = settings.max_timeout + 30
graceful_timeout = settings.max_timeout + 10
keepalive = 5

logconfig_dict = settings.log_config
control_socket_disable = True

sendfile = False  # it would wait for ever for a client that does not read
# Nobody sets the scheme, or the path, by a header. A proxy is trusted by --forwarded-allow-ips and its address.
forwarded_allow_ips = ""
