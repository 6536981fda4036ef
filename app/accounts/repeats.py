"""Requests that repeat a running one, and wait for its answer."""

from __future__ import annotations

import threading
import time

from app.accounts.idempotency import Answered, Claim, Running
from app.accounts.keys import Key
from app.accounts.ledger import Ledger
from tasks.contract.errors import Code, TolkError

LOOKS = (0.05, 0.25)  # seconds between two checks whether the request still runs, at first and at most


class Repeats:
    """The repeats that wait in this process. Each waits until its client hangs up at the latest. Thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._hung_up: dict[tuple[str, str], threading.Event] = {}  # by principal and request id

    def claim(self, wanted: Claim, key: Key | None) -> Claim | Answered:
        """A Claim if this caller has to execute the request, otherwise its answer. Waits while another caller executes
        it.

        Raises TolkError: TIMEOUT if the request still runs at the deadline of `wanted`, CANCELLED if the client has
        hung up, and what the ledger's `claim` raises.
        """
        found = self._ledger.claim(wanted, key)
        if not isinstance(found, Running):
            return found
        hung_up = self._hung_up[wanted.principal, wanted.request_id] = threading.Event()
        try:
            return self._wait(wanted, key, hung_up)
        finally:
            # Clients choose the ids, so another waiting request may have the same one.
            self._hung_up.pop((wanted.principal, wanted.request_id), None)

    def abandon(self, request_id: str, principal: str | None) -> bool:
        """Ends a waiting repeat with CANCELLED, because its client has hung up. Returns whether there was one."""
        hung_up = self._hung_up.get((principal or "", request_id))
        if hung_up is None:
            return False
        hung_up.set()
        return True

    def _wait(self, wanted: Claim, key: Key | None, hung_up: threading.Event) -> Claim | Answered:
        pause, longest = LOOKS
        while True:
            if time.time() + pause >= wanted.deadline:
                raise TolkError(Code.TIMEOUT, "Another request with this idempotencyKey still runs. Send it again.")
            if hung_up.wait(pause):
                raise TolkError(Code.CANCELLED, "The client has hung up.")
            found = self._ledger.claim_again(wanted, key)
            if not isinstance(found, Running):
                return found
            pause = min(2 * pause, longest)
