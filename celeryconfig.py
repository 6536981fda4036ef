"""Celery's configuration, for the worker and for whoever publishes: the one place of the queue tier that reads the
environment. It is read when a Celery application first asks for its configuration. A variable that cannot be used
raises SettingsError.

    CELERY_BROKER_URL   the RabbitMQ (default amqp://guest:guest@127.0.0.1:5672//), or CELERY_BROKER_URL_FILE with it
    TOLK_BROKER_CA      for amqps://, a file with whom to trust (default: whom the system trusts); the certificate to
                        show, optional, is in TOLK_BROKER_CERT, its key in TOLK_BROKER_KEY
    TOLK_MODELS         the file of models (default models.toml, beside this file)
    TOLK_GPU            a worker's --gpu: the number of a GPU, or none (default: the first one if any, else the CPU)
    TOLK_PRECISION      float32, bfloat16, float16, int8 or auto: the fastest on the device (default auto)
    TOLK_STEP_TIMEOUT   seconds that a model may take for one step before its worker ends (default 60)
    TOLK_LOG_FORMAT     json or text (default: text on a terminal)
    TOLK_LOG_LEVEL      debug, info, warning or error (default: a worker's --loglevel)
    OTEL_EXPORTER_OTLP_ENDPOINT  where a worker sends its spans (default: nowhere); OpenTelemetry's others hold, too
    TOLK_METRICS        a worker's --metrics: HOST:PORT of its /metrics and /healthz (default: nothing listens)
    TOLK_CONCURRENCY    how many requests a worker holds at once, so that its engines can batch them (default 64)
    TOLK_MEMORY         bytes that a worker's models may take, or 4GB, 512MiB (default: tasks.host.memory.for_models)
    TOLK_MODEL_CACHE    a directory for models that are fetched from elsewhere (default: tolk in the user's cache)
    TOLK_MODEL_CACHE_BYTES  what they may take there (default 20000000000)
    TOLK_MODEL_HOSTS    where models may come from: HOST, HOST:PORT, s3://BUCKET, gs://BUCKET, separated by commas
                        (default huggingface.co)
"""

from __future__ import annotations

import os

from tasks import environment
from tasks.queues import address
from tasks.queues.topology import translation_queues
from tasks.registry.entry import PRECISIONS
from tasks.registry.file import RegistryFile

tolk_models = RegistryFile(environment.models(os.environ))
tolk_gpu = environment.matching(os.environ, "TOLK_GPU", r"none|\d+", "the number of a GPU, or none,") or ""
tolk_metrics = environment.metrics(os.environ)
tolk_log_format = environment.log_format(os.environ)
tolk_log_level = environment.log_level(os.environ)
tolk_export_spans = environment.export_spans(os.environ)
tolk_precision = environment.choice(os.environ, "TOLK_PRECISION", PRECISIONS, "auto")
tolk_step_timeout = environment.whole_number(os.environ, "TOLK_STEP_TIMEOUT", 60, most=9999)
tolk_memory = environment.size(os.environ, "TOLK_MEMORY")
tolk_model_cache = environment.path(os.environ, "TOLK_MODEL_CACHE")
tolk_model_cache_bytes = environment.whole_number(os.environ, "TOLK_MODEL_CACHE_BYTES", 20 * 10**9, most=10**18)
tolk_model_hosts = environment.items(os.environ, "TOLK_MODEL_HOSTS", "huggingface.co")

broker_url = address.address(os.environ)
broker_use_ssl = address.tls(broker_url, os.environ)
broker_connection_timeout = 2  # seconds for each node of the broker: one that is gone may not even refuse
broker_transport_options = {"confirm_publish": True, "connect_retries_timeout": 10}  # seconds for all of them
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_heartbeat = 30

accept_content = ["json"]
task_serializer = "json"
result_serializer = "json"
result_backend = "tasks.worker.replies:Replies"
result_persistent = False

imports = ("tasks.worker.translate", "tasks.worker.control")
task_queues = [queue for route in tolk_models.current().routes for queue in translation_queues(route)]
task_default_queue = task_queues[0].name
task_create_missing_queues = False
task_acks_late = True
task_reject_on_worker_lost = True
task_ignore_result = False

worker_consumer = "tasks.worker.consumer:Consumer"
worker_pool = "tasks.worker.thread:TaskPool"
worker_concurrency = environment.whole_number(os.environ, "TOLK_CONCURRENCY", 64, most=9999)
worker_prefetch_multiplier = 1
# Every thread may hold a connection to send its reply; a worker that finds none for its own affairs would give up.
broker_pool_limit = worker_concurrency + 10
worker_send_task_events = True
