"""The result backend of a worker: it sends replies as Celery's RPC results, with less work for each."""

from __future__ import annotations

from typing import Any

from celery.backends.rpc import RPCBackend

from tasks.queues.errors import BROKER_ERRORS


class Replies(RPCBackend):
    """Publishes once the fields of a result that the web tier reads. If that fails, Celery's backend takes over."""

    app: Any  # this attribute and the next ones are missing in celery-types
    serializer: str
    delivery_mode: int

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Returns `result` when the broker has confirmed it. Skips Celery's preparations for chains and chords."""
        reply_to, correlation_id = self.destination_for(task_id, request)
        if not reply_to:
            return result
        try:
            with self.app.amqp.producer_pool.acquire(block=True) as producer:
                producer.publish(
                    {"task_id": task_id, "status": state, "result": self.encode_result(result, state)},
                    routing_key=reply_to,
                    correlation_id=correlation_id,
                    serializer=self.serializer,
                    delivery_mode=self.delivery_mode,
                )
        except BROKER_ERRORS:  # Celery's backend connects again and retries
            return super().store_result(task_id, result, state, traceback, request, **kwargs)
        return result
