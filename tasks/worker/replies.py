"""How a worker's reply travels: Celery's RPC results, on the shortest way."""

from __future__ import annotations

from typing import Any

from celery.backends.rpc import RPCBackend

from tasks.queues.errors import BROKER_ERRORS


class Replies(RPCBackend):
    """Publishes what the web tier reads of a result, once; Celery's own way is for when that fails."""

    app: Any  # missing in celery-types, as are these
    serializer: str
    delivery_mode: int

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Returns `result` when the broker has it. Celery would first collect what belongs to chains and chords."""
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
        except BROKER_ERRORS:  # Celery connects again and again
            return super().store_result(task_id, result, state, traceback, request, **kwargs)
        return result
