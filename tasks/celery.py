"""The Celery application of the workers: `celery -A tasks worker`."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_init

from tasks import logs, options
from tasks.serving import ModelsInMemory
from telemetry import tracing


class Tolk(Celery):
    """The Celery application. In a worker that has started, `models` are the models in its memory."""

    amqp_cls = "tasks.worker.selection:AMQP"
    models: ModelsInMemory


app = Tolk("tolk")
app.config_from_object("celeryconfig")
app.user_options["worker"] |= {options.GPU, options.METRICS, options.SIBLINGS, options.SUPERVISOR}


@setup_logging.connect(weak=False)
def set_up_log(loglevel: int | str, logfile: str | None, **_: Any) -> None:
    logs.set_up(app.conf, loglevel, logfile)


@worker_init.connect(weak=False)
def export_spans(**_: Any) -> None:
    if app.conf.tolk_export_spans:
        from opentelemetry.instrumentation.celery import CeleryInstrumentor

        tracing.start("tolk-worker")
        instrumentor: Any = CeleryInstrumentor
        instrumentor().instrument()


app.steps["worker"].add("tasks.worker.start:LoadModels")  # named by a string, so that only a worker imports it
app.steps["worker"].add("tasks.worker.supervision:Supervision")
app.steps["consumer"] |= {"tasks.worker.consumer:DeclareDeadLetters", "tasks.worker.subscriptions:Subscriptions"}
