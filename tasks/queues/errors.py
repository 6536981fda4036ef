"""What speaking with the broker may raise, whichever way it fails."""

from __future__ import annotations

from amqp.exceptions import AMQPError, MessageNacked
from kombu.exceptions import LimitExceeded, OperationalError

BROKER_ERRORS = (AMQPError, MessageNacked, OperationalError, LimitExceeded, OSError)
