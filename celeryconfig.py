"""Celery's configuration, for the workers and for the web tier, which publishes. Only this module reads the environment
for the queue tier, when a Celery application first asks for its configuration. An unusable value raises SettingsError.

    CELERY_BROKER_URL   the address of RabbitMQ (default amqp://guest:guest@127.0.0.1:5672//);
                        CELERY_BROKER_URL_FILE names a file with the address instead
    TOLK_BROKER_CA      for amqps://, a file with the certificates to trust (default: those of the system);
                        TOLK_BROKER_CERT and TOLK_BROKER_KEY are the client's certificate and its key, if needed
    TOLK_MODELS         the file of models (default models.toml, beside this file)
    TOLK_GPU            as a worker's --gpu: the number of a GPU, or none (default: the first GPU, else the CPU)
    TOLK_PRECISION      float32, bfloat16, float16, int8, or auto for the fastest on the device (default auto)
    TOLK_STEP_TIMEOUT   seconds that a model may take for one step before its worker ends (default 60)
    TOLK_LOG_FORMAT     json or text (default: text on a terminal, else json)
    TOLK_LOG_LEVEL      debug, info, warning or error (default: a worker's --loglevel)
    OTEL_EXPORTER_OTLP_ENDPOINT  where a worker sends its spans (default: nowhere); OpenTelemetry's other variables
                        apply, too
    TOLK_METRICS        as a worker's --metrics: HOST:PORT of its /metrics and /healthz (default: neither is served)
    TOLK_CONCURRENCY    messages that a worker holds at once, so that its engines can batch them (default 64); a message
                        has up to 16 requests. Of bulk messages it works on an eighth as many besides
    TOLK_MEMORY         bytes that a worker's models may take, also as 4GB or 512MiB (default: see
                        tasks.host.memory.for_models)
    TOLK_MODEL_CACHE    the directory for fetched models (default: tolk in the user's cache directory)
    TOLK_MODEL_CACHE_BYTES  bytes that fetched models may take there (default 20000000000)
    TOLK_MODEL_HOSTS    the hosts that models may be fetched from: HOST, HOST:PORT, s3://BUCKET, gs://BUCKET,
                        separated by commas (default huggingface.co)
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
broker_connection_timeout = 2  # seconds for each node of the broker: the host of a lost node may not answer at all
broker_transport_options = {"confirm_publish": True, "connect_retries_timeout": 10}  # seconds for all nodes together
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_heartbeat = 30

accept_content = ["json"]
task_serializer = "json"

imports = ("tasks.worker.translate", "tasks.worker.control")
task_queues = [queue for route in tolk_models.current().routes for queue in translation_queues(route)]
task_default_queue = task_queues[0].name
task_create_missing_queues = False
task_acks_late = True
task_reject_on_worker_lost = True
task_ignore_result = True  # the task sends its replies itself

worker_consumer = "tasks.worker.consumer:Consumer"
worker_pool = "tasks.worker.thread:TaskPool"
worker_concurrency = environment.whole_number(os.environ, "TOLK_CONCURRENCY", 64, most=9999)
worker_prefetch_multiplier = 1
worker_send_task_events = True
