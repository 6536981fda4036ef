"""Downloads that are given up, from a web server that sends byte by byte."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from models.errors import Unavailable
from models.store.allowance import Allowance
from models.store.store import Store
from tests.models.elsewhere import Server, hasty, serving

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def server(directory: Path) -> Iterator[Server]:
    with serving(Server(trickles=True)) as started:
        started.put(directory)
        yield started


def store(server: Server, cache: Path, **allowance: float) -> Store:
    return hasty(cache, hosts=[server.host], allowance=partial(Allowance, **allowance))


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_download_that_is_too_slow_fails_and_goes_on_later(server: Server, tmp_path: Path, has_ranges: bool) -> None:
    server.has_ranges = has_ranges
    with pytest.raises(Unavailable, match="failed 5 times"):
        store(server, tmp_path / "cache", window=0.5).fetch(f"{server.url}/model")
    server.trickles = False
    store(server, tmp_path / "cache").fetch(f"{server.url}/model").release()


def test_all_of_a_download_has_a_deadline(server: Server, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match="took longer than 1 s"):
        store(server, tmp_path / "cache", longest=1.0).fetch(f"{server.url}/model")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_download_that_nobody_waits_for_is_given_up(server: Server, tmp_path: Path, has_ranges: bool) -> None:
    server.has_ranges = has_ranges
    began = time.monotonic()
    with pytest.raises(Unavailable, match="nobody waits"):
        store(server, tmp_path / "cache").fetch(f"{server.url}/model", wanted=lambda: time.monotonic() < began + 1)
    assert time.monotonic() - began < 10


def test_whoever_waits_for_another_ones_download_gives_up_too(
    server: Server, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    going = threading.Event()
    one, other = (store(server, tmp_path / "cache") for _ in range(2))

    def download() -> None:
        with pytest.raises(Unavailable):
            one.fetch(f"{server.url}/model", wanted=lambda: not going.is_set())

    thread = threading.Thread(target=download)
    thread.start()
    eventually(server.downloads)
    with pytest.raises(Unavailable, match="nobody waits"):
        other.fetch(f"{server.url}/model", wanted=lambda: False)
    going.set()
    thread.join()


def test_what_is_on_the_disk_is_found_and_what_is_not_names_its_host(
    server: Server, directory: Path, tmp_path: Path
) -> None:
    server.trickles = False
    found = store(server, tmp_path / "cache")
    reference = f"{server.url}/model"
    assert found.find(reference) == server.host
    assert found.find("hf:org/name") == "hf"
    found.fetch(reference).release()
    asked = len(server.asked)
    for each in (reference, str(directory), "fr-en"):
        held = found.find(each)
        assert not isinstance(held, str)
        held.release()
    assert len(server.asked) == asked
