"""The directory of a run: its checkpoints, and its history, a line of JSON for everything that was said or measured."""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from models.errors import BadInput
from models.training import checkpoint
from models.training.checkpoint import State

logger = logging.getLogger(__name__)


class Run(NamedTuple):
    directory: Path

    @property
    def trunk(self) -> Path:
        return self.directory / "trunk.pt"

    @property
    def landing(self) -> Path:
        return self.directory / "landing.pt"

    @property
    def history(self) -> Path:
        return self.directory / "history.jsonl"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Makes the directory. Raises BadInput where another process trains there."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BadInput(f"{self.directory}: another process trains there.") from error
            yield

    def resume(self, steps: int, fingerprint: str) -> State:
        """The landing after `steps` that is under way, or the trunk, or a new state. Later notes are forgotten."""
        state = checkpoint.load(self.trunk) if self.trunk.exists() else State(fingerprint=fingerprint)
        if self.landing.exists():
            landing = checkpoint.load(self.landing)
            if landing.landing_from == max(steps, state.step):
                state = landing
        if state.fingerprint != fingerprint:
            logger.warning("data or settings are not those that the run began with; figures will not be the same")
        self._forget_after(state.step)
        return state

    def keep(self, state: State) -> None:
        checkpoint.save(self.trunk if state.landing_from is None else self.landing, state)

    def note(self, **said: object) -> None:
        with self.history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(said, ensure_ascii=False) + "\n")

    def _forget_after(self, step: int) -> None:
        """A run that was killed may have noted more than it kept, and half of its last line."""
        if not self.history.exists():
            return
        lines = self.history.read_text(encoding="utf-8", errors="replace").splitlines()
        known = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        partial = self.history.with_name("history.part")
        partial.write_text("".join(f"{line}\n" for line in known), encoding="utf-8")
        partial.replace(self.history)
