"""The hub, S3 and Google's storage, accessed with their own libraries."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from models.checkpoint.checksum import Checksum
from models.errors import Unavailable, UnknownModel
from models.store.origin import said
from models.store.progress import Progress
from models.store.store import Store
from tests.models.elsewhere import BLOCK, COMMIT, WEIGHTS, Server, hasty, serving

# The hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[Server]:
    with serving(Server()) as server:
        server.put(directory, "/org/name")
        server.files["/org/name/flax_model.msgpack"] = b"not wanted"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            server.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield server


@pytest.fixture
def store(hub: Server, tmp_path: Path) -> Store:
    return hasty(tmp_path / "cache", hosts=[hub.host])


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_a_model_of_the_hub_is_that_of_one_commit(hub: Server, store: Store, directory: Path, revision: str) -> None:
    with store.fetch(f"hf:org/name{revision}") as held:
        assert held.checksum == Checksum.of(directory)
        assert {path.name for path in held.directory.iterdir()} == {*held.checksum.digests, "SHA256SUMS"}
    fetched = [asked for asked in hub.asked if "/resolve/" in asked.path]
    assert {asked.path.split("/")[4] for asked in fetched} == {COMMIT}
    assert {asked.token for asked in fetched} == {"Bearer hf_secret"}
    asked = len(hub.asked)
    store.fetch(f"hf:org/name{revision}").release()
    assert len(hub.asked) == asked


def test_weights_lie_in_the_hubs_storage(hub: Server, store: Store, directory: Path) -> None:
    """The hub redirects to its storage, which must not get the hub's token."""
    with serving(Server()) as storage:
        storage.put(directory, "/blobs")
        hub.redirects[f"/org/name/resolve/{COMMIT}/{WEIGHTS}"] = f"{storage.url}/blobs/{WEIGHTS}?signature=x"
        with store.fetch("hf:org/name") as held:
            assert held.checksum == Checksum.of(directory)
        assert storage.downloads()[1].start == BLOCK
        assert {asked.token for asked in storage.asked} == {None}


def test_a_cut_download_from_the_hub_goes_on(
    hub: Server, store: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library waits half a minute between tries
    hub.cuts[:] = [BLOCK, BLOCK, *[0] * 100]
    with pytest.raises(Unavailable, match=f"Fetching {WEIGHTS} of hf:org/name failed 5 times"):
        store.fetch("hf:org/name")
    hub.cuts.clear()
    hub.asked.clear()
    with store.fetch("hf:org/name") as held:
        assert held.checksum == Checksum.of(directory)
    assert hub.downloads()[0].start == 2 * BLOCK


def test_what_the_hub_has_not(hub: Server, store: Store) -> None:
    for reference in ("hf:org/none", "hf:org/name@none"):
        with pytest.raises(UnknownModel, match=f"Looking at {reference} was refused: .*404"):
            store.fetch(reference)


def test_damage_on_the_way_is_seen_and_repaired(hub: Server, store: Store, directory: Path) -> None:
    """The hub sends the SHA-256 of weights."""
    right = hub.files[f"/org/name/{WEIGHTS}"]
    hub.damaged[f"/org/name/{WEIGHTS}"] = right[:BLOCK] + bytes(len(right) - BLOCK)
    hub.before = lambda asked: hub.damaged.clear() if hub.sent == len(right) else None
    with store.fetch("hf:org/name") as held:
        assert held.checksum == Checksum.of(directory)
    assert hub.sent == 2 * len(right)


def test_damage_is_seen_by_the_next_process_too(hub: Server, store: Store, directory: Path, tmp_path: Path) -> None:
    """The first process ended when it had all bytes, before it checked them."""

    class Interrupting(Progress):
        def report(self, name: str, there: int) -> None:
            if (name, there) == (WEIGHTS, len(right)):
                raise KeyboardInterrupt

    right = hub.files[f"/org/name/{WEIGHTS}"]
    hub.damaged[f"/org/name/{WEIGHTS}"] = bytes(len(right))
    with pytest.raises(KeyboardInterrupt):
        hasty(tmp_path / "cache", hosts=[hub.host], progress=Interrupting).fetch("hf:org/name")
    hub.damaged.clear()
    with store.fetch("hf:org/name") as held:
        assert held.checksum == Checksum.of(directory)


def test_a_hub_elsewhere_has_to_be_allowed(hub: Server, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=f"{hub.host} is not among the hosts"):
        hasty(tmp_path).fetch("hf:org/name")
    assert not hub.asked


# Buckets


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch, directory: Path) -> s3fs.S3FileSystem:
    """A bucket `bucket` with a model under `models/tiny`; environment variables say where it is, as usual."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    files.makedirs("bucket", exist_ok=True)
    for path in directory.iterdir():
        files.pipe_file(f"bucket/models/tiny/{path.name}", path.read_bytes())
    return files


def test_a_model_in_a_bucket_of_s3(bucket: s3fs.S3FileSystem, tmp_path: Path, directory: Path) -> None:
    store = hasty(tmp_path / "cache", hosts=["s3://bucket"])
    with store.fetch("s3://bucket/models/tiny") as held:
        assert held.checksum == Checksum.of(directory)
    with pytest.raises(UnknownModel, match="s3://other is not among the hosts"):
        store.fetch("s3://other/models/tiny")
    with pytest.raises(UnknownModel, match=r"s3://bucket/none: there is no config\.json"):
        store.fetch("s3://bucket/none")


@pytest.mark.parametrize("changed", [False, True])
def test_a_part_from_s3_goes_on_where_it_is_still_of_the_same(
    bucket: s3fs.S3FileSystem, tmp_path: Path, directory: Path, changed: bool
) -> None:
    there: list[int] = []  # bytes of the weights that are there at the beginning, and after each block

    class Noting(Progress):
        def report(self, name: str, size: int) -> None:
            if name == WEIGHTS:
                there.append(size)
                if there == [0, BLOCK, 2 * BLOCK, 3 * BLOCK]:
                    raise KeyboardInterrupt

    store = hasty(tmp_path / "cache", hosts=["s3://bucket"], progress=Noting)
    with pytest.raises(KeyboardInterrupt):
        store.fetch("s3://bucket/models/tiny")
    if changed:
        weights = (directory / WEIGHTS).read_bytes()
        (directory / WEIGHTS).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
        bucket.pipe_file(f"bucket/models/tiny/{WEIGHTS}", (directory / WEIGHTS).read_bytes())
    with store.fetch("s3://bucket/models/tiny") as held:
        assert held.checksum == Checksum.of(directory)
    assert there[4] == (0 if changed else 3 * BLOCK)


def test_a_model_in_a_bucket_of_google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path) -> None:
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with serving(Server()) as server:
        server.put(directory, "/bucket/models/tiny")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        server.cuts[:] = [BLOCK, BLOCK // 2]
        with hasty(tmp_path / "cache", hosts=["gs://bucket"]).fetch("gs://bucket/models/tiny") as held:
            assert held.checksum == Checksum.of(directory)
        with pytest.raises(UnknownModel, match=r"gs://bucket/none: there is no config\.json"):
            hasty(tmp_path / "cache", hosts=["gs://bucket"]).fetch("gs://bucket/none")


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_package_that_is_missing_is_named(
    protocol: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(import_module("fsspec.registry")._registry, protocol, raising=False)  # may be imported
    with pytest.raises(Unavailable, match=f"{protocol}://b/c needs the package {package}: pip install {package}"):
        hasty(tmp_path, hosts=[f"{protocol}://b"]).fetch(f"{protocol}://b/c")


def test_signatures_are_not_said() -> None:
    error = ConnectionError("403 for https://a.example/b?X-Amz-Signature=secret&c 'https://a.example/?secret'")
    assert said(error) == "403 for https://a.example/b?… 'https://a.example/?…'"
