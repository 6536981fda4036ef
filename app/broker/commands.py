"""Commands to all workers or to all web processes, sent as Celery's remote control sends them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from celery import Celery
from kombu import Connection, Consumer, Exchange, Producer
from kombu.pidbox import Mailbox

from app.monitoring.status import WebStatus
from tasks.contract.names import STATUS_COMMAND

FIND_COMMAND = "tolk_find"  # asks web processes which of them has a request
CANCEL_COMMAND = "tolk_cancel_here"  # asks the web process that has it to cancel it
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


def send(
    producer: Producer,
    exchange: Exchange,
    method: str,
    arguments: dict[str, Any],
    to: Sequence[str] | None = None,
    **reply: Any,
) -> None:
    """Sends a command to every process that listens at the exchange, or to those that are named in `to`. `reply` holds
    the fields that say where answers go, if any are wanted.

    Celery's own `control.broadcast` would wait as long as the broker is down.
    """
    command: Any = {"method": method, "arguments": arguments, "destination": to, **reply}
    producer.publish(command, exchange=exchange, declare=[exchange], serializer="json", retry=False)


def answer(
    connection: Connection,
    name: str,
    tell: Callable[[], WebStatus],
    find: Callable[..., None],
    cancel: Callable[..., None],
) -> Consumer:
    """A consumer, not yet consuming, by which this web process answers other ones on the connection under the name
    `name`.

    `tell` returns its WebStatus. `find` and `cancel` are called with the arguments of their commands.
    """
    mailbox: Any = WEB(connection)  # a Mailbox; to celery-types, a Node
    node = mailbox.Node(
        name,
        channel=connection.default_channel,
        handlers={
            STATUS_COMMAND: lambda _state: asdict(tell()),
            FIND_COMMAND: lambda _state, **arguments: find(**arguments),
            CANCEL_COMMAND: lambda _state, **arguments: cancel(**arguments),
        },
    )
    consumer: Consumer = node.Consumer(callbacks=[node.handle_message])
    return consumer
