"""Commands to all workers, or to all web processes, as Celery's remote control sends them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from celery import Celery
from kombu import Connection, Consumer, Exchange, Producer
from kombu.pidbox import Mailbox

from app.monitoring.status import WebStatus
from tasks.contract.names import STATUS_COMMAND

CANCEL_COMMAND = "tolk_cancel"  # asks web processes to cancel a request
WEB = Mailbox("tolk.web", type="fanout", accept=["json"], serializer="json")


def to_workers(celery: Celery) -> Exchange:
    """The exchange by which a command reaches every worker."""
    exchange: Exchange = celery.control.mailbox.exchange  # type: ignore[attr-defined]  # missing in celery-types
    return exchange


def to_web_processes() -> Exchange:
    """The exchange by which a command reaches every web process."""
    mailbox: Any = WEB
    exchange: Exchange = mailbox.exchange
    return exchange


def send(producer: Producer, exchange: Exchange, method: str, arguments: dict[str, Any], **reply: Any) -> None:
    """Sends a command to all who listen at an exchange; `reply` says where to, where an answer is wanted.

    Celery's own `control.broadcast` would wait for a broker that is down for as long as it is.
    """
    command: Any = {"method": method, "arguments": arguments, "destination": None, **reply}
    producer.publish(command, exchange=exchange, declare=[exchange], serializer="json", retry=False)


def answer(connection: Connection, name: str, tell: Callable[[], WebStatus], cancel: Callable[..., None]) -> Consumer:
    """What lets a web process answer others on this connection, as `name`; not yet consuming.

    They ask for its WebStatus, or to `cancel` a request, with the arguments that they send.
    """
    mailbox: Any = WEB(connection)  # a Mailbox; to celery-types, a Node
    node = mailbox.Node(
        name,
        channel=connection.default_channel,
        handlers={
            STATUS_COMMAND: lambda _state: asdict(tell()),
            CANCEL_COMMAND: lambda _state, **arguments: cancel(**arguments),
        },
    )
    consumer: Consumer = node.Consumer(callbacks=[node.handle_message])
    return consumer
