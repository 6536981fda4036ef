"""Celery's configuration, for the worker and for whoever publishes: the one place of the queue tier that reads the
environment. It is read when a Celery application first asks for its configuration.

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
import re
from pathlib import Path

from celery.exceptions import ImproperlyConfigured

from tasks.queues import address as broker
from tasks.queues.topology import translation_queues
from tasks.registry.entry import PRECISIONS, RegistryError
from tasks.registry.file import RegistryFile
from telemetry import logs, tracing
from telemetry.address import Address


def load_models(path: Path) -> RegistryFile:
    try:
        return RegistryFile(path)
    except RegistryError as error:
        raise ImproperlyConfigured(str(error)) from error


def check(name: str, value: str, pattern: str, wanted: str) -> str:
    if not re.fullmatch(pattern, value):
        raise ImproperlyConfigured(f"{name} is {wanted}, not {value!r}.")
    return value


def address(name: str, value: str | None) -> Address | None:
    try:
        return Address.parse(value) if value else None
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is {error}.") from None


def spans_are_wanted() -> bool:
    try:
        return tracing.wanted(os.environ)
    except tracing.TracingError as error:
        raise ImproperlyConfigured(str(error)) from error


def size(name: str, value: str) -> int:
    """Bytes, of a whole number that may have a unit."""
    found = re.fullmatch(r"(\d+) ?(?:([KMGT])(i?))?B?", value)
    if found is None or not int(found[1]):
        raise ImproperlyConfigured(f"{name} is a number of bytes, such as 4000000000, 4GB or 512MiB, not {value!r}.")
    step, power = 1024 if found[3] else 1000, " KMGT".index(found[2] or " ")
    return int(found[1]) * int(step**power)


tolk_models = load_models(Path(os.environ.get("TOLK_MODELS") or Path(__file__).with_name("models.toml")))
tolk_gpu = check("TOLK_GPU", os.environ.get("TOLK_GPU", ""), r"|none|\d+", "the number of a GPU, or none")
tolk_metrics = address("TOLK_METRICS", os.environ.get("TOLK_METRICS"))
tolk_log_format = check(
    "TOLK_LOG_FORMAT", os.environ.get("TOLK_LOG_FORMAT") or logs.default_form(), "|".join(logs.FORMS), "json or text"
)
tolk_log_level = check(
    "TOLK_LOG_LEVEL", os.environ.get("TOLK_LOG_LEVEL", ""), "|" + "|".join(logs.LEVELS), "debug, info, warning or error"
)
tolk_export_spans = spans_are_wanted()
tolk_precision = check(
    "TOLK_PRECISION",
    os.environ.get("TOLK_PRECISION") or "auto",
    "|".join(PRECISIONS),
    ", ".join(PRECISIONS[:-1]) + f" or {PRECISIONS[-1]}",
)
tolk_step_timeout = int(
    check("TOLK_STEP_TIMEOUT", os.environ.get("TOLK_STEP_TIMEOUT") or "60", r"[1-9]\d{0,3}", "a number from 1 to 9999")
)
tolk_memory = size("TOLK_MEMORY", os.environ["TOLK_MEMORY"]) if os.environ.get("TOLK_MEMORY") else None
tolk_model_cache = Path(os.environ["TOLK_MODEL_CACHE"]) if os.environ.get("TOLK_MODEL_CACHE") else None
cache_bytes = os.environ.get("TOLK_MODEL_CACHE_BYTES") or "20000000000"
tolk_model_cache_bytes = int(check("TOLK_MODEL_CACHE_BYTES", cache_bytes, r"[1-9]\d*", "a number of bytes"))
tolk_model_hosts = tuple(filter(None, map(str.strip, os.environ.get("TOLK_MODEL_HOSTS", "huggingface.co").split(","))))

broker_url = broker.address(os.environ)
broker_use_ssl = broker.tls(broker_url, os.environ)
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

imports = ("tasks.worker.translate",)
task_queues = [queue for route in tolk_models.current().routes for queue in translation_queues(route)]
task_default_queue = task_queues[0].name
task_create_missing_queues = False
task_acks_late = True
task_reject_on_worker_lost = True
task_ignore_result = False

worker_consumer = "tasks.worker.consumer:Consumer"
worker_pool = "threads"
worker_concurrency = int(
    check("TOLK_CONCURRENCY", os.environ.get("TOLK_CONCURRENCY") or "64", r"[1-9]\d{0,3}", "a number from 1 to 9999")
)
worker_prefetch_multiplier = 1
# Every thread may hold a connection to send its reply; a worker that finds none for its own affairs would give up.
broker_pool_limit = worker_concurrency + 10
worker_send_task_events = True
