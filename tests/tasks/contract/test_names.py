from __future__ import annotations

from tasks.contract.names import queue_name


def test_each_model_has_two_queues() -> None:
    assert queue_name("fr-en", "interactive") == "tolk.translate.fr-en.interactive"
    assert queue_name("fr-en", "bulk") == "tolk.translate.fr-en.bulk"
