"""Celery's configuration for the results worker, which needs the broker and the database, and no model. The variables
are those of celeryconfig.py and of app/settings.py. It is read when the application first asks for it; one that cannot
be used ends the process with one sentence."""

from __future__ import annotations

import os
import sys

from app.settings import Settings
from tasks.environment import SettingsError
from tasks.queues import address
from tasks.queues.topology import job_results_queue
from tasks.registry.entry import RegistryError
from tasks.registry.file import RegistryFile

try:
    tolk_settings = Settings.from_env(os.environ)
    tolk_models = RegistryFile(tolk_settings.models)
    broker_url = address.address(os.environ)
    broker_use_ssl = address.tls(broker_url, os.environ)
except (SettingsError, RegistryError) as error:
    sys.exit(f"tolk: {error}")

broker_connection_timeout = 2  # seconds for each node of the broker
broker_transport_options = {"confirm_publish": True, "connect_retries_timeout": 10}  # seconds for all nodes together
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_heartbeat = 30

task_queues = [job_results_queue()]
task_default_queue = task_queues[0].name
task_create_missing_queues = False
worker_consumer = "app.jobs.results:Consumer"
worker_pool = "solo"
worker_concurrency = 1
worker_prefetch_multiplier = 16  # replies that it holds at once
worker_enable_remote_control = False  # it is no worker that translates, and answers no question about models
worker_send_task_events = False
