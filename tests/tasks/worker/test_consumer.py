"""Messages that no worker can take become dead letters; the log has a reason, and none of their texts."""

from __future__ import annotations

import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Queue

from tasks.contract.delivery import body as kept
from tasks.contract.delivery import defect
from tasks.contract.errors import Code, TolkError
from tasks.contract.names import MESSAGE_BYTES, TASK
from tasks.contract.reply import TranslateReply
from tasks.queues import topology

QUEUE = "tolk.translate.a.interactive"
CALL = json.dumps([[{"texts": ["a secret"]}], {}, {}]).encode()


def poison(reason: str, body: bytes = CALL, **changes: Any) -> tuple[str, bytes, dict[str, Any]]:
    """The reason for which a message becomes a dead letter, and the differences from a good message."""
    headers = {"task": TASK, "id": "poison", **changes.pop("headers", {})}
    properties = {"content_type": "application/json", "content_encoding": "utf-8", "headers": headers, **changes}
    return reason, body, properties


POISON = [
    poison("its body is not JSON", b'["a secret'),
    poison("its body is not JSON", b"[" * 100_000),
    poison("its body is not JSON", b"a secret \xff"),
    poison("its body is no call of the task", b"5"),
    poison("its body is no call of the task", b'{"args": ["a secret"]}'),
    poison("its body is no call of the task", b'[["a secret", 2], {}, {}]'),
    poison("its body is no call of the task", b'[["a secret"], {}, {"callbacks": [{"task": "a secret"}]}]'),
    poison("there is no task 'tolk.unheard-of'", headers={"task": "tolk.unheard-of"}),
    poison("there is no task None", headers={"task": None}),
    poison("there is no task \"{'a': 1}\"", headers={"task": {"a": 1}}),
    poison("it has no id", headers={"id": None}),
    poison(
        "content type 'application/x-python-serialize' is not",
        pickle.dumps("x"),
        content_type="application/x-python-serialize",
    ),
    poison("content type 'application/data' is not application/json", content_type=None),
    poison("content encoding 'rot13' is not utf-8", content_encoding="rot13"),
    poison("it is compressed", zlib.compress(CALL), headers={"compression": "zlib"}),
    poison("it is compressed", b"a secret", headers={"compression": "zlib"}),
    poison("its 4194305 bytes are more than 4194304", b" " * MESSAGE_BYTES + b"5"),
    poison("it uses eta of Celery", headers={"eta": "a secret"}),
    poison("it uses eta of Celery", headers={"eta": "2099-01-01T00:00:00+00:00"}),
    poison("it uses expires of Celery", headers={"expires": "2099-01-01T00:00:00+00:00"}),
    poison("it uses timelimit of Celery", headers={"timelimit": [None, 1]}),
    poison("it uses retries of Celery", headers={"retries": 3}),
    poison("it uses group of Celery", headers={"group": "a secret"}),
    poison("it uses shadow of Celery", headers={"shadow": "a secret"}),
    poison("it uses stamps of Celery", headers={"stamps": {"a": "secret"}}),
    poison("its body is no call of the task", b'[["a secret"], {}, {"chord": {"task": "a secret"}}]'),
    poison("its body is no call of the task", b'[["a secret"], {}, {"chain": [{"task": "a secret"}]}]'),
    poison(r"its id 'a\nb' is not printable, or too long", headers={"id": "a\nb"}),
    poison("its id 'xxx", headers={"id": "x" * 256}),
    poison(r"its id 'a\x1b[2J' is not printable, or too long", headers={"id": "a\x1b[2J"}),
]


@pytest.fixture(scope="module")
def worker(broker, start_worker, models: Path) -> Any:
    return start_worker(broker.url, app="echo", TOLK_MODELS=str(models))


@pytest.mark.broker
def test_poison_is_a_dead_letter_at_once_and_does_no_harm(broker, worker, ask, eventually) -> None:
    with Connection(broker.url, transport_options={"confirm_publish": True}) as connection:
        channel = connection.default_channel
        letters = topology.dead_letter_queue()(channel)
        replies = Queue("tolk.poisoned", exclusive=True)(channel)
        for declared in (letters, replies):
            declared.declare()
            declared.purge()  # of what other tests left
        for reason, body, properties in POISON:
            assert ask(f"before {reason}").results[0].text == f"before {reason}"
            connection.Producer().publish(
                body, routing_key=QUEUE, correlation_id=reason, reply_to="tolk.poisoned", **properties
            )
            assert ask(f"after {reason}").results[0].text == f"after {reason}"
            eventually(lambda: replies.queue_declare().message_count == 1)
            reply = TranslateReply.decode(replies.get(no_ack=True).payload["result"])
            assert (reply.error and reply.error.code) is Code.INTERNAL
            eventually(lambda: letters.queue_declare().message_count == 1)
            raw = channel.basic_get(letters.name, no_ack=True)
            assert raw.headers["x-first-death-reason"] == "rejected"
            letter = channel.message_to_python(raw)
            assert kept(letter) == body or "compressed" in reason
            letter.accept = {"application/json"}
            assert reason.startswith("Celery") or (defect(letter) or "").startswith(reason)
            assert worker.says(f"a message of {QUEUE} becomes a dead letter: {reason}")
    assert not worker.says("secret")


@pytest.mark.broker
def test_what_expired_is_no_dead_letter(broker, worker, ask, eventually) -> None:
    worker.stop()
    with Connection(broker.url) as connection:
        letters = topology.dead_letter_queue()(connection.default_channel)
        letters.purge()
        with pytest.raises(TolkError):
            ask("un", timeout=0.5)
        queue = topology.translation_queue("a", "interactive")(connection.default_channel)
        eventually(lambda: queue.queue_declare().message_count == 0)
        assert letters.queue_declare().message_count == 0
