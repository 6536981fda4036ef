"""Our worker, with a tenth of its patience with slow clients: `--worker-class tests.app.hasty.HastyWorker`."""

from app.web.connection import RECEIVE_TIMEOUT, SEND_TIMEOUT
from app.web.server import Worker


class HastyWorker(Worker):
    receive_timeout = RECEIVE_TIMEOUT / 10
    send_timeout = SEND_TIMEOUT / 30
