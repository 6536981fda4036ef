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
    """The repeats that wait in this process. Each waits until it is cancelled, or its client hangs up. Thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str], list[threading.Event]] = {}  # by principal and id, which clients choose

    def claim(self, wanted: Claim, key: Key | None) -> Claim | Answered:
        """A Claim if this caller has to execute the request, otherwise its answer. Waits while another caller executes
        it.

        Raises TolkError: TIMEOUT if the request still runs at the deadline of `wanted`, CANCELLED if it was cancelled
        meanwhile, and what the ledger's `claim` raises.
        """
        found = self._ledger.claim(wanted, key)
        if not isinstance(found, Running):
            return found
        name, cancelled, claimed = (wanted.principal, wanted.request_id), threading.Event(), None
        with self._lock:
            self._waiting.setdefault(name, []).append(cancelled)
        try:
            claimed = self._wait(wanted, key, cancelled)
        finally:
            with self._lock:
                self._waiting[name].remove(cancelled)
                if not self._waiting[name]:
                    del self._waiting[name]
            if cancelled.is_set() and isinstance(claimed, Claim):
                self._ledger.release(claimed)
        if cancelled.is_set():
            raise _cancelled()
        return claimed

    def has(self, request_id: str, principal: str | None) -> bool:
        """Whether a repeat with this id waits here."""
        return (principal or "", request_id) in self._waiting

    def cancel(self, request_id: str, principal: str | None) -> bool:
        """Ends the repeats with this id that wait here with CANCELLED. Returns whether there was one."""
        with self._lock:
            repeats = self._waiting.get((principal or "", request_id), [])
            for cancelled in repeats:
                cancelled.set()
        return bool(repeats)

    def _wait(self, wanted: Claim, key: Key | None, cancelled: threading.Event) -> Claim | Answered:
        pause, longest = LOOKS
        while True:
            if time.time() + pause >= wanted.deadline:
                raise TolkError(Code.TIMEOUT, "Another request with this idempotencyKey still runs. Send it again.")
            if cancelled.wait(pause):
                raise _cancelled()
            found = self._ledger.claim(wanted, key, again=True)
            if not isinstance(found, Running):
                return found
            pause = min(2 * pause, longest)


def _cancelled() -> TolkError:
    return TolkError(Code.CANCELLED, "The request was cancelled.")
