"""Plain `gunicorn` serves the web tier; docs/api.md names the settings."""

import os
import sys

from app.admission import THREADS
from app.settings import Settings, SettingsError
from tasks.registry import Registry, RegistryError

try:  # here, once: a worker that cannot boot would be started again and again
    settings = Settings.from_env(os.environ)
    Registry.load(settings.models)
except (SettingsError, RegistryError) as error:
    sys.exit(f"tolk: {error}")

wsgi_app = "app:create_app()"
bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"

# A request waits most of its time, so threads; the connection to the broker is a process's own, so no preloading.
worker_class = "gthread"
workers = 2
threads = THREADS
preload_app = False

# Both outlast the longest request that is allowed.
timeout = settings.max_timeout + 30
graceful_timeout = settings.max_timeout + 10
keepalive = 5

# The path without its query: nothing that was sent is logged.
accesslog = "-"
access_log_format = '%(t)s %(h)s "%(m)s %(U)s" %(s)s %(B)s bytes %(M)s ms %({x-request-id}o)s'
control_socket_disable = True
