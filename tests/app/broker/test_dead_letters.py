"""`flask --app app dead-letters` on a real broker, whose dead letters come about as they do: rejected, or too often."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from click.testing import Result
from kombu import Connection

from app import create_app
from app.broker import dead_letters
from app.broker.dead_letters import opened
from app.settings import Settings
from app.translation.translator import EchoTranslator
from tasks.contract.names import PUBLISHED, TASK
from tasks.contract.request import TranslateRequest
from tasks.queues import topology

QUEUE = "tolk.translate.letters.interactive"
SUSPECTS = "tolk.suspects.letters"

pytestmark = pytest.mark.broker


@pytest.fixture
def flask(broker, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr(dead_letters, "opened", partial(opened, broker.url))
    runner = create_app(Settings(), EchoTranslator()).test_cli_runner()
    return lambda *arguments: runner.invoke(args=["dead-letters", *arguments])


@pytest.fixture
def channel(broker) -> Iterator[Any]:
    with Connection(broker.url, transport_options={"confirm_publish": True}) as connection:
        channel: Any = connection.default_channel
        for queue in (
            topology.dead_letter_queue(),
            topology.suspects_queue("letters"),
            topology.translation_queue("letters", "interactive"),
        ):
            queue(channel).declare()
            queue(channel).purge()
        yield channel
        topology.dead_letter_queue()(channel).purge()


@pytest.fixture
def bury(channel: Any, eventually: Callable[..., None]) -> Callable[..., None]:
    """Publishes a message to a queue, and makes a dead letter of it: rejected, or delivered too often."""

    def make(body: bytes, *, exhausted: bool = False, **properties: Any) -> None:
        letters = topology.dead_letter_queue()(channel)
        before = letters.queue_declare().message_count
        published = {"content_type": "application/json", "content_encoding": "utf-8", **properties}
        queue = SUSPECTS if exhausted else QUEUE
        channel.connection.client.Producer().publish(body, routing_key=queue, **published)
        channel.basic_reject(channel.basic_get(queue).delivery_tag, requeue=exhausted)
        eventually(lambda: letters.queue_declare().message_count > before)

    return make


def request(name: str, timeout: float) -> tuple[bytes, dict[str, Any]]:
    asked = TranslateRequest(texts=("un secret",), target="en", model="letters", deadline=time.time() + timeout)
    headers = {"task": TASK, "id": name, "argsrepr": "['un secret']", PUBLISHED: time.time() - 1}
    body = json.dumps([[asked.encode()], {}, {}]).encode()
    return body, {"headers": headers, "correlation_id": name, "reply_to": "tolk.reply.somebody", "expiration": timeout}


def depths(channel: Any) -> tuple[int, int]:
    names = (QUEUE, topology.dead_letter_queue().name)
    found = [channel.queue_declare(name, passive=True).message_count for name in names]
    return found[0], found[1]


def test_the_list_says_what_is_wrong_with_each_and_looking_changes_nothing(flask, channel, bury) -> None:
    body, properties = request("killer", 60)
    bury(body, exhausted=True, **properties)
    bury(b'["un secret', correlation_id="half\x1b[2J\u202e")
    bury(b"", message_id="empty", content_type="text/plain")
    bury(b"nobody's secret" * 100, content_encoding="latin-1")
    bury(b"a secret bomb", correlation_id="packed", headers={"compression": "gzip"})
    bury(body, headers={"task": "tolk.unheard-of", "id": "new"})
    listed = flask("list")
    assert listed.exit_code == 0
    heading, *rows = listed.output.splitlines()
    assert heading.split() == ["ID", "DIED", "QUEUE", "DELIVERIES", "BYTES", "REASON"]
    found = [(row.split()[0], *row.split()[3:6], row.split(maxsplit=6)[6]) for row in rows]
    assert found == [
        (
            "killer",
            SUSPECTS,
            "3",
            str(len(body)),
            "its worker ended at every delivery, due to this or another message",
        ),
        ("half\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}", QUEUE, "1", "11", "its body is not JSON"),
        ("empty", QUEUE, "1", "0", "content type 'text/plain' is not application/json"),
        (rows[3].split()[0], QUEUE, "1", "1500", "content encoding 'latin-1' is not utf-8"),
        ("packed", QUEUE, "1", "13", "it is compressed"),
        ("new", QUEUE, "1", str(len(body)), "there is no task 'tolk.unheard-of'"),
    ]
    assert rows[3].startswith("sha256-")
    assert "secret" not in listed.output
    for _ in range(25):  # more often than RabbitMQ 4 delivers where nothing is said
        assert flask("list").output == listed.output


def test_one_is_shown_with_its_texts_only_where_they_are_asked_for(flask, channel, bury) -> None:
    body, properties = request("known", 3600)
    bury(body, **properties)
    shown = flask("show", "known")
    assert shown.exit_code == 0
    assert "1 texts, 9 characters, to en" in shown.output
    assert "tolk.reply.somebody" in shown.output
    assert "secret" not in shown.output
    assert "un secret" in flask("show", "known", "--texts").output
    absent = flask("show", "unknown")
    assert (absent.exit_code, absent.output) == (1, "Error: There is no dead letter unknown.\n")
    bury(b"\x1b[2J\xff", correlation_id="bytes")
    assert r"b'\x1b[2J\xff'" in flask("show", "bytes", "--texts").output


@pytest.mark.parametrize(("exhausted", "queue"), [(False, QUEUE), (True, SUSPECTS)])
def test_what_somebody_waits_for_goes_back_as_a_new_message(flask, channel, bury, exhausted: bool, queue: str) -> None:
    body, properties = request("again", 60)
    bury(body, exhausted=exhausted, **properties)
    assert flask("requeue", "again").output == "1 put back, 0 left.\n"
    message = channel.basic_get(queue, no_ack=True)
    assert message.body.encode() == body
    written = {name: value for name, value in message.headers.items() if name.startswith("x-")}
    assert written in ({}, {"x-delivery-count": 0})  # a new message's
    assert abs(message.headers[PUBLISHED] - time.time()) < 30
    assert 20_000 < int(message.properties["expiration"]) < 60_000
    assert message.properties["correlation_id"] == "again"
    assert message.properties["reply_to"] == "tolk.reply.somebody"


def test_what_nobody_waits_for_stays_unless_it_is_forced_and_then_has_time(flask, channel, bury) -> None:
    body, properties = request("late", -5)
    bury(body, **{**properties, "expiration": None})
    bury(b"[", correlation_id="broken")
    refused = flask("requeue", "--all")
    assert refused.exit_code == 1
    assert "late stays: its deadline passed" in refused.output
    assert "broken stays: it has no deadline" in refused.output
    assert "0 put back, 2 left." in refused.output
    assert depths(channel) == (0, 2)
    assert flask("requeue", "--all", "--force").exit_code == 0
    assert depths(channel) == (2, 0)
    [payload], *rest = json.loads(channel.basic_get(QUEUE, no_ack=True).body)
    assert TranslateRequest.decode(payload).deadline > time.time() + 20
    assert rest == [{}, {}]
    assert channel.basic_get(QUEUE, no_ack=True).body == "["


def test_what_has_no_queue_any_more_stays(flask, channel, bury) -> None:
    body, properties = request("homeless", 60)
    bury(body, **properties)
    channel.queue_delete(QUEUE)
    refused = flask("requeue", "homeless")
    assert refused.exit_code == 1
    assert f"homeless stays: there is no queue {QUEUE}." in refused.output
    assert flask("list").output.count("homeless") == 1


def test_purging_asks_and_deletes_no_more_than_it_was_told(flask, channel, bury) -> None:
    for name in ("one", "two", "three"):
        bury(b"[", correlation_id=name)
    assert flask("purge", "two").exit_code == 1  # nobody answers
    assert depths(channel) == (0, 3)
    assert flask("purge", "two", "--yes").output == "1 deleted.\n"
    assert [row.split()[0] for row in flask("list").output.splitlines()[1:]] == ["one", "three"]
    assert flask("purge", "--all", "--yes").output == "2 deleted.\n"
    assert flask("list").output == "There are no dead letters.\n"


@pytest.mark.parametrize("command", ["requeue", "purge"])
@pytest.mark.parametrize("arguments", [[], ["one", "--all"]])
def test_one_or_all_has_to_be_said(flask, command: str, arguments: list[str]) -> None:
    assert flask(command, *arguments).exit_code == 2


def test_two_at_once_do_not_see_half_of_it(broker, flask, channel, bury) -> None:
    bury(b"[", correlation_id="one")
    with opened(broker.url) as letters:
        assert [letter.id for letter in letters] == ["one"]
        second = flask("purge", "--all", "--yes")
        assert (second.exit_code, second.output) == (
            1,
            "Error: Somebody else has the dead letters open. Try again in a moment.\n",
        )
    assert "one" in flask("list").output


def test_a_broker_that_is_not_there_is_one_sentence(flask, free_port, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"amqp://guest:secret@127.0.0.1:{free_port()}//"
    monkeypatch.setattr(dead_letters, "opened", partial(opened, url))
    result = flask("list")
    assert result.exit_code == 1
    assert result.output.startswith("Error: The broker amqp://guest:**@127.0.0.1:")
    assert result.output.count("\n") == 1
