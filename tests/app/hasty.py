"""Our worker, with a tenth of its patience with slow clients: `--worker-class tests.app.hasty.HastyWorker`."""

from app.web.server import RECEIVE_TIMEOUT, SEND_TIMEOUT, Worker


class HastyWorker(Worker):
    receive_timeout = RECEIVE_TIMEOUT / 10
    send_timeout = SEND_TIMEOUT / 30
