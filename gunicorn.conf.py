"""The configuration with which plain `gunicorn` serves the web tier. README.md lists the settings."""

import os
import re
import resource
import runpy
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.settings import LISTENERS, MOST_CONNECTIONS, OTHER_FILES, THREADS, Settings
from app.web.proxies import TrustedProxies
from tasks.environment import SettingsError
from tasks.registry.entry import RegistryError
from tasks.registry.file import load_registry


def load() -> Settings:
    """Reads the settings and, like a worker, models.toml and celeryconfig.py, so that gunicorn reports an error in them
    before it starts a worker."""
    settings = Settings.from_env(os.environ)
    if settings.translator == "celery":
        runpy.run_path(str(Path(__file__).with_name("celeryconfig.py")))  # reads models.toml, too
    else:
        load_registry(settings.models)
    return settings


def connections() -> int:
    """How many clients a process may be connected to: as many as its files allow, less OTHER_FILES. Subscriptions get
    files of their own. Raises SettingsError."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + OTHER_FILES + LISTENERS
    if 0 <= files < wanted:
        files = wanted if most < 0 else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    if 0 <= files < LEAST_CONNECTIONS + OTHER_FILES:
        raise SettingsError(
            f"A process may have {files} files open (ulimit -n); at least {LEAST_CONNECTIONS + OTHER_FILES} were "
            "expected."
        )
    return MOST_CONNECTIONS if files < 0 else min(MOST_CONNECTIONS, files - OTHER_FILES)


def on_starting(server: Any) -> None:
    """Makes a reload (SIGHUP) keep the old settings if the new ones are wrong. gunicorn by itself would end."""
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
    """Makes the directory for metrics, unless an operator has set one. This is before any worker runs, and not repeated
    by a reload. A new master (SIGUSR2) inherits its predecessor's directory in the environment, but needs one of its
    own, because the predecessor deletes it."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if settings.metrics is not None and (not directory or maker(directory) is not None):
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=f"tolk-metrics-{os.getpid()}-")


def post_worker_init(worker: Any) -> None:
    """Has subscriptions end when the worker begins to, and believes the proxies that --forwarded-allow-ips names."""
    worker.when_ending = worker.wsgi.extensions["streams"].end
    if trusted := worker.cfg.forwarded_allow_ips:
        worker.wsgi = TrustedProxies(worker.wsgi, worker.cfg.forwarded_allow_networks(), "*" in trusted)


def on_exit(_server: Any) -> None:
    """Deletes the directory for metrics if this master has made it, but not an operator's own."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    if maker(directory) == os.getpid():
        shutil.rmtree(directory, ignore_errors=True)


def maker(directory: str) -> int | None:
    """The process id of the master that made a directory for metrics; None for an operator's own directory."""
    found = re.match(r"tolk-metrics-(\d+)-", Path(directory).name)
    return int(found[1]) if found else None


LEAST_CONNECTIONS = 64

try:  # in the master, because a worker that cannot boot would be restarted again and again
    settings = load()
    worker_connections = connections()  # per process
except (SettingsError, RegistryError) as error:
    sys.exit(f"tolk: {error}")

wsgi_app = "app:create_app()"
bind = [f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"]
if settings.metrics is not None:
    bind.append(str(settings.metrics))

# A request mostly waits, so it is served by a thread. There are more threads than requests that may wait for
# translations; the others refuse further requests and answer health checks. Each process needs its own connection to
# the broker, so the application is not preloaded.
worker_class = "app.web.server.Worker"  # gthread, with timeouts for slow clients
workers = 2
threads = THREADS
preload_app = False

# Both are longer than the longest request.
timeout = settings.max_timeout + 30
graceful_timeout = settings.max_timeout + 10
keepalive = 5

logconfig_dict = settings.log_config
control_socket_disable = True

sendfile = False  # sendfile would wait for ever for a client that does not read
# No client may set the scheme, the path or its address by a header. To trust a proxy, give its address to
# --forwarded-allow-ips (docs/operations.md).
forwarded_allow_ips = ""
