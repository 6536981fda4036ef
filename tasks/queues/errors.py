"""The exceptions that py-amqp and kombu raise if the broker fails or cannot be reached."""

from __future__ import annotations

from amqp.exceptions import AMQPError, MessageNacked
from kombu.exceptions import LimitExceeded, OperationalError

BROKER_ERRORS = (AMQPError, MessageNacked, OperationalError, LimitExceeded, OSError)
