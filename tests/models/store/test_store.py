"""The store with a web server that cuts, changes, redirects and lies; and with other processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from models.checkpoint.checksum import Checksum
from models.errors import BadInput, Unavailable, UnknownModel
from models.local import LocalTranslator
from models.store.store import Store
from tests.models.elsewhere import BLOCK, WEIGHTS, Asked, Server, hasty, serving

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel

ROOT = Path(__file__).parents[3]
PROGRAM = """
import logging, sys
from pathlib import Path
from models.errors import ModelError
from models.store.store import Store

logging.basicConfig(level=logging.INFO, format="%(message)s")
directory, hosts, *references = sys.argv[1:]
for reference in references:
    try:
        held = Store(Path(directory), hosts=hosts.split(","), request=16384, pause=0.001).fetch(reference)
        print(held.directory, flush=True)
    except ModelError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
sys.stdin.read()
"""  # fetches and holds, until its standard input ends

Child = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as started:
        yield started


@pytest.fixture
def reference(server: Server, directory: Path) -> str:
    return server.put(directory)


@pytest.fixture
def store(server: Server, tmp_path: Path) -> Store:
    return hasty(tmp_path / "cache", hosts=[server.host])


@pytest.fixture
def child() -> Iterator[Child]:
    started: list[subprocess.Popen[str]] = []

    def start(cache: Path, hosts: str, *references: str, within: Sequence[str] = ()) -> subprocess.Popen[str]:
        command = [*within, sys.executable, "-c", PROGRAM, str(cache), hosts, *references]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def mounted() -> Callable[[str], list[str]]:
    """The prefix of a command that then sees what `mount` mounts; other processes do not."""

    def make(*arguments: str) -> list[str]:
        own = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
        if subprocess.run([*own, "true"], stderr=subprocess.PIPE).returncode:
            pytest.skip("mounting is not allowed here")
        return [*own, "sh", "-c", f'{" ".join(arguments)} && exec "$@"', "sh"]

    return make


def files(directory: Path) -> set[str]:
    """All files below a directory by path, except locks."""
    found = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    return {path for path in found if not path.endswith("/lock")}


def weigh(directory: Path) -> int:
    return (directory / WEIGHTS).stat().st_size


def weigh_all(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# From a directory of a web server


def test_a_model_is_fetched_once_and_needs_nobody_afterwards(
    store: Store, server: Server, reference: str, directory: Path
) -> None:
    with store.fetch(reference) as held:
        assert held.checksum == Checksum.of(directory)
        assert {path.name for path in held.directory.iterdir()} == {
            *(path.name for path in directory.iterdir()),
            "SHA256SUMS",
        }
    asked = len(server.asked)
    server.files.clear()
    with store.fetch(reference) as again:
        assert again.directory == held.directory
    assert (len(server.asked), server.sent) == (asked, weigh(directory))


def test_a_translator_holds_it_until_it_is_closed(
    server: Server, reference: str, directory: Path, tmp_path: Path
) -> None:
    store = hasty(tmp_path / "cache", budget=int(1.5 * weigh_all(directory)), hosts=[server.host])
    other = server.put(directory, "/other")
    with LocalTranslator.load(reference, store=store) as translator, LocalTranslator.load(str(directory)) as local:
        texts = ["Il dort.", "Je vais dormir."]
        said = [translator.translate(texts, target="eng").results, local.translate(texts, target="eng").results]
        assert said[0] == said[1]
        assert (translator.version, translator.checksum) == (local.version, local.checksum)
        with pytest.raises(Unavailable, match=r"do not fit .* TOLK_MODEL_CACHE_BYTES"):
            store.fetch(other)
        assert translator.directory.is_dir()
    store.fetch(other).release()
    assert not translator.directory.exists()


def test_a_translator_that_cannot_be_loaded_holds_nothing(
    server: Server, reference: str, directory: Path, tmp_path: Path
) -> None:
    store = hasty(tmp_path / "cache", budget=int(1.5 * weigh_all(directory)), hosts=[server.host])
    with pytest.raises(BadInput) as caught:
        LocalTranslator.load(reference, store=store, target_tokens={"xx": ">>xx<<"})
    store.fetch(server.put(directory, "/other")).release()
    assert caught  # keeps the error, and so all that its traceback refers to


def test_the_default_store_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UnknownModel, match=r"a\.example is not among the hosts that .* \(huggingface\.co\)"):
        LocalTranslator.load("https://a.example/model")
    assert (tmp_path / "tolk").is_dir()


def test_who_has_no_home_names_a_directory(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    Store().fetch(str(directory)).release()
    with pytest.raises(BadInput, match="TOLK_MODEL_CACHE"):
        Store().fetch("hf:org/name")


def test_the_older_format_where_there_is_no_other(store: Store, server: Server, make_model: MakeModel) -> None:
    with store.fetch(server.put(make_model(safetensors=False, separate=True))) as held:
        assert {"pytorch_model.bin", "target_vocab.json"} <= {path.name for path in held.directory.iterdir()}


def test_files_that_no_model_needs_stay_where_they_are(
    store: Store, server: Server, reference: str, directory: Path
) -> None:
    (directory / "pytorch_model.bin").write_bytes(b"x")
    (directory / "run.py").write_bytes(b"x")
    server.put(directory)
    store.fetch(reference).release()
    assert not [asked for asked in server.asked if asked.path.endswith((".bin", ".py"))]


def test_trouble_that_passes(store: Store, server: Server, reference: str, caplog: pytest.LogCaptureFixture) -> None:
    server.statuses[:] = [503, 503, 429, 429, 500, 500]
    store.fetch(reference).release()
    assert caplog.text.count("It is tried again") == 3


def test_trouble_that_stays(store: Store, server: Server, reference: str) -> None:
    server.statuses[:] = [503] * 100
    with pytest.raises(Unavailable, match=r"Looking at .* failed 5 times, lastly: 503.*Try again later"):
        store.fetch(reference)


@pytest.mark.parametrize("status", [401, 403, 451])
def test_a_refusal_is_final(store: Store, server: Server, reference: str, status: int) -> None:
    server.statuses[:] = [status] * 100
    with pytest.raises(UnknownModel, match=f"was refused: {status}"):
        store.fetch(reference)
    assert len(server.asked) == 2  # HEAD, then GET, because some servers do not support HEAD


@pytest.mark.parametrize("name", ["config.json", "source.spm", WEIGHTS])
def test_a_file_that_is_missing_there(store: Store, server: Server, reference: str, name: str, tmp_path: Path) -> None:
    del server.files[f"/model/{name}"]
    with pytest.raises(UnknownModel, match=f"there is no {name}"):
        store.fetch(reference)
    assert not files(tmp_path / "cache")


def test_nobody_there(store: Store, reference: str, server: Server, tmp_path: Path) -> None:
    with serving(Server()) as gone:
        pass
    with pytest.raises(Unavailable, match="failed 5 times"):
        hasty(tmp_path / "cache", hosts=[gone.host]).fetch(f"{gone.url}/model")


# Cuts


def test_a_cut_download_goes_on_where_it_stopped(store: Store, server: Server, reference: str, directory: Path) -> None:
    size = weigh(directory)
    server.cuts[:] = [BLOCK, BLOCK, BLOCK // 2]
    store.fetch(reference).release()
    starts = [asked.start for asked in server.downloads()]
    assert starts == [0, BLOCK, 2 * BLOCK, *range(2 * BLOCK, size, BLOCK)]
    assert server.sent == size + BLOCK // 2


def test_and_does_so_in_another_process(
    store: Store, server: Server, reference: str, directory: Path, tmp_path: Path, child: Child
) -> None:
    """A process that is killed during a download leaves its part and its lock to the next one."""
    reached = server.stop_at(4 * BLOCK)
    process = child(tmp_path / "cache", server.host, reference)
    assert reached.wait(30)
    process.kill()
    process.wait()
    server.go_on()
    server.sent = 0
    with store.fetch(reference) as held:
        assert held.checksum == Checksum.of(directory)
    assert [asked.start for asked in server.downloads()][5] == 4 * BLOCK
    assert server.sent <= weigh(directory) - 3 * BLOCK  # one block was in transit


def test_a_file_that_changed_after_the_cut_starts_anew(
    store: Store, server: Server, reference: str, directory: Path, make_model: MakeModel
) -> None:
    server.cuts[:] = [BLOCK, BLOCK, *[0] * 20]
    with pytest.raises(Unavailable):
        store.fetch(reference)
    server.cuts.clear()
    server.asked.clear()
    server.put(make_model(d_model=32))
    with store.fetch(reference) as held:
        assert held.checksum == Checksum.of(make_model(d_model=32))
    assert server.downloads()[0].start == 0


def test_a_file_that_changes_meanwhile_is_fetched_in_one_state(
    store: Store, server: Server, reference: str, make_model: MakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    def change(asked: Asked) -> None:
        if asked.start == 2 * BLOCK and asked.path.endswith(WEIGHTS):
            server.put(make_model(d_model=32))

    server.before = change
    with store.fetch(reference) as held:
        assert held.checksum == Checksum.of(make_model(d_model=32))
    assert "changed while it was fetched" in caplog.text


def test_without_ranges_it_starts_anew(store: Store, server: Server, reference: str, directory: Path) -> None:
    server.has_ranges = False
    server.cuts[:] = [10**9, 10**9, 2 * BLOCK]
    with store.fetch(reference) as held:
        assert held.checksum == Checksum.of(directory)
    assert server.sent >= weigh(directory) + 2 * BLOCK


def test_without_sizes_and_tags(store: Store, server: Server, reference: str, directory: Path) -> None:
    server.has_sizes = server.has_tags = False
    with store.fetch(reference) as held:
        assert held.checksum == Checksum.of(directory)


def test_without_a_tag_no_part_is_trusted(store: Store, server: Server, reference: str, directory: Path) -> None:
    server.has_tags = False
    server.cuts[:] = [BLOCK, BLOCK, 0]
    with store.fetch(reference) as held:
        assert held.checksum == Checksum.of(directory)
    assert [asked.start for asked in server.downloads()][:4] == [0, BLOCK, 2 * BLOCK, 0]


@pytest.mark.parametrize("has_sizes", [True, False])
def test_larger_than_any_model(server: Server, reference: str, has_sizes: bool, tmp_path: Path) -> None:
    store = hasty(tmp_path / "cache", hosts=[server.host], largest_weights=2 * BLOCK)
    server.has_sizes = has_sizes
    with pytest.raises(UnknownModel, match=rf"at most {2 * BLOCK} were|were received than the {2 * BLOCK} that"):
        store.fetch(reference)
    assert not files(tmp_path / "cache")


# What is refused


def test_a_wrong_checksum_never_comes_into_place(
    store: Store, server: Server, reference: str, directory: Path, tmp_path: Path
) -> None:
    right, wrong = str(Checksum.of(directory)), f"sha256:{'0' * 64}"
    with pytest.raises(UnknownModel, match=rf"has checksum {right}; {wrong} was expected"):
        store.fetch(reference, wrong)
    assert not files(tmp_path / "cache")
    store.fetch(reference, right).release()
    with pytest.raises(UnknownModel, match=wrong):  # the cached one stays
        store.fetch(reference, wrong)
    server.files.clear()
    store.fetch(reference, right).release()


def test_a_new_checksum_fetches_a_new_version(
    store: Store, server: Server, reference: str, make_model: MakeModel
) -> None:
    with store.fetch(reference) as old:
        server.put(make_model(d_model=32))
        checksum = str(Checksum.of(make_model(d_model=32)))
        with store.fetch(reference, checksum) as new:
            assert str(new.checksum) == checksum
        assert old.directory == new.directory
    with pytest.raises(BadInput):
        store.fetch(reference, "sha256:x")


def test_checksums_of_models_that_are_here(store: Store, directory: Path) -> None:
    wrong = f"sha256:{'0' * 64}"
    for here in ("fr-en", str(directory)):
        with store.fetch(here) as held:
            store.fetch(here, str(held.checksum)).release()
        with pytest.raises(UnknownModel, match=f"{wrong} was expected"):
            LocalTranslator.load(here, checksum=wrong)


@pytest.mark.parametrize("path", ["/model/config.json", f"/model/{WEIGHTS}"])
def test_a_redirect_to_another_host_is_not_followed(
    store: Store, server: Server, reference: str, directory: Path, path: str, tmp_path: Path
) -> None:
    with serving(Server()) as other:
        other.put(directory)
        server.redirects[path] = f"{other.url}{path}?secret"
        with pytest.raises(UnknownModel, match=f"{other.host} is not among the hosts") as caught:
            store.fetch(reference)
        assert not other.asked
        assert "secret" not in str(caught.value)
        hasty(tmp_path / "cache", hosts=[server.host, other.host]).fetch(reference).release()
        assert other.asked


def test_a_redirect_to_what_is_not_encrypted(store: Store, server: Server, reference: str) -> None:
    server.redirects["/model/config.json"] = "http://models.example/config.json"
    with pytest.raises(UnknownModel, match="write https://"):
        store.fetch(reference)


def test_hosts_are_asked_for_nothing_unless_they_are_allowed(server: Server, reference: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=f"{server.host} is not among the hosts"):
        hasty(tmp_path).fetch(reference)
    assert not server.asked


@pytest.mark.parametrize("name", ["vocab.json", "source.spm", WEIGHTS])
def test_what_cannot_be_loaded_does_not_come_into_place(
    store: Store, server: Server, reference: str, name: str, tmp_path: Path
) -> None:
    server.files[f"/model/{name}"] = b"x" * 1000
    with pytest.raises(UnknownModel, match=name):
        store.fetch(reference)
    assert not files(tmp_path / "cache")


def test_a_pickle_that_would_run_does_not_come_into_place(
    store: Store, server: Server, reference: str, tmp_path: Path
) -> None:
    del server.files[f"/model/{WEIGHTS}"]
    server.files["/model/pytorch_model.bin"] = b"cos\nsystem\n(S'touch run'\ntR."
    with pytest.raises(UnknownModel, match=r"pytorch_model\.bin: is not a checkpoint that can be read safely"):
        store.fetch(reference)
    assert not files(tmp_path / "cache")


@pytest.mark.parametrize(("budget", "hosts"), [(0, []), (-1, []), (1, ["https://a.example"])])
def test_a_store_that_cannot_be(budget: int, hosts: list[str], tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        hasty(tmp_path, budget=budget, hosts=hosts)


# Archives


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive(store: Store, server: Server, directory: Path, tmp_path: Path, kind: str) -> None:
    form = {"tar.gz": "gztar"}.get(kind, kind)
    (directory / "pytorch_model.bin").write_bytes(b"not looked at, beside the other")
    made = Path(shutil.make_archive(str(tmp_path / "made"), form, directory.parent, directory.name))
    server.files[f"/m/fr.{kind}"] = made.read_bytes()
    with store.fetch(f"{server.url}/m/fr.{kind}") as held:
        assert held.checksum == Checksum.of(directory)
        assert {path.name for path in held.directory.iterdir()} == {*Checksum.of(directory).digests, "SHA256SUMS"}
    assert not files(tmp_path / "cache" / "partial")


def test_an_archive_that_means_harm(store: Store, server: Server, tmp_path: Path) -> None:
    server.files["/a.zip"] = b"PK\x05\x06" + bytes(18)
    with pytest.raises(UnknownModel, match=r"/unpacked: has neither"):
        store.fetch(f"{server.url}/a.zip")
    with pytest.raises(UnknownModel, match=r"there is no archive\.tgz"):
        store.fetch(f"{server.url}/none.tgz")
    assert not files(tmp_path / "cache")


# The cache


@pytest.mark.parametrize(
    ("name", "break_"),
    [
        (WEIGHTS, spoil),
        (WEIGHTS, lambda path: os.truncate(path, 100)),
        ("vocab.json", Path.unlink),
        ("SHA256SUMS", lambda path: os.truncate(path, 0)),
        ("SHA256SUMS", Path.unlink),
    ],
)
def test_a_broken_model_in_the_cache_is_fetched_again(
    store: Store, server: Server, reference: str, directory: Path, name: str, break_: Callable[[Path], None]
) -> None:
    with store.fetch(reference) as first:
        break_(first.directory / name)
        with store.fetch(reference) as held:
            assert held.checksum == Checksum.of(directory)
    assert server.sent == 2 * weigh(directory)
    store.fetch(reference).release()
    assert server.sent == 2 * weigh(directory)


def test_a_broken_model_stays_while_no_other_can_be_had(
    store: Store, server: Server, reference: str, caplog: pytest.LogCaptureFixture
) -> None:
    with store.fetch(reference) as held:
        spoil(held.directory / WEIGHTS)
        server.statuses[:] = [503] * 100
        with pytest.raises(Unavailable):
            store.fetch(reference)
        assert "is broken and is fetched again" in caplog.text
        assert (held.directory / WEIGHTS).exists()


def test_the_least_recently_used_goes(server: Server, directory: Path, tmp_path: Path) -> None:
    references = [server.put(directory, f"/{name}") for name in "abc"]
    size = weigh_all(directory)
    store = hasty(tmp_path / "cache", budget=int(2.5 * size), hosts=[server.host])
    a, b = (store.fetch(reference) for reference in references[:2])
    a.release()
    b.release()
    for age, held in ((20, b), (10, a)):
        moment = (held.directory / "SHA256SUMS").stat().st_mtime - age
        os.utime(held.directory / "SHA256SUMS", (moment, moment))
    store.fetch(references[2]).release()
    assert (a.directory.exists(), b.directory.exists()) == (True, False)
    moment = a.directory.stat().st_mtime - 100
    os.utime(a.directory / "SHA256SUMS", (moment, moment))
    store.fetch(references[0]).release()  # it was used last, so that c is deleted
    store.fetch(references[1]).release()
    assert (a.directory.exists(), b.directory.exists()) == (True, True)
    assert weigh_all(tmp_path / "cache") <= 2.5 * size


def test_what_dead_downloads_left_goes_first(server: Server, directory: Path, tmp_path: Path) -> None:
    size = weigh_all(directory)
    store = hasty(tmp_path / "cache", budget=int(2.5 * size), hosts=[server.host])
    kept = store.fetch(server.put(directory, "/a"))
    kept.release()
    server.put(directory, "/b")
    server.cuts[:] = [10**9] * (weigh(directory) // BLOCK) + [0] * 5
    with pytest.raises(Unavailable):
        store.fetch(f"{server.url}/b")
    assert any(WEIGHTS in path for path in files(tmp_path / "cache" / "partial"))
    server.put(directory, "/c")
    store.fetch(f"{server.url}/c").release()
    assert kept.directory.exists()
    assert not files(tmp_path / "cache" / "partial")


def test_a_model_larger_than_the_budget(server: Server, reference: str, directory: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"do not fit into the 0\.0 MB"):
        hasty(tmp_path, budget=10_000, hosts=[server.host]).fetch(reference)
    assert server.sent == 0


def test_a_model_that_others_hold_is_not_removed(server: Server, directory: Path, tmp_path: Path, child: Child) -> None:
    """It is not removed even if the budget is exceeded. It is removed when the others have ended, in any way."""
    size = weigh_all(directory)
    store = hasty(tmp_path / "cache", budget=int(1.5 * size), hosts=[server.host])
    first, second = server.put(directory, "/a"), server.put(directory, "/b")
    with store.fetch(first) as held:
        process = child(tmp_path / "cache", server.host, first)
        assert process.stdout
        assert process.stdout.readline() == f"{held.directory}\n"
    with pytest.raises(Unavailable, match="beside those in use"):
        store.fetch(second)
    assert held.directory.exists()
    process.kill()
    process.wait()
    store.fetch(second).release()
    assert not held.directory.exists()


def test_threads_and_processes_that_want_the_same_model_download_it_once(
    store: Store, server: Server, reference: str, directory: Path, tmp_path: Path, child: Child
) -> None:
    reached = server.stop_at(0)
    fetching = child(tmp_path / "cache", server.host, reference)
    assert reached.wait(30)
    waiting = child(tmp_path / "cache", server.host, reference)
    assert waiting.stderr
    assert "waiting for another process" in waiting.stderr.readline()
    with ThreadPoolExecutor() as threads:
        held = [threads.submit(store.fetch, reference) for _ in range(2)]
        server.go_on()
        places = {str(one.result().directory) for one in held}
    places |= {process.stdout.readline().rstrip() for process in (fetching, waiting) if process.stdout}
    assert len(places) == 1
    assert server.sent == weigh(directory)


# The disk


def test_a_full_disk_is_an_error_and_leaves_all_as_it_was(
    server: Server, directory: Path, tmp_path: Path, child: Child, mounted: Callable[..., list[str]]
) -> None:
    """It is noticed before the download if the size is known, else during it. Cached models stay; parts do not."""
    size = weigh_all(directory)
    cache = tmp_path / "cache"
    cache.mkdir()
    with serving(Server(has_sizes=False)) as sizeless:
        references = [server.put(directory, "/a"), server.put(directory, "/b"), sizeless.put(directory)]
        tmpfs = mounted("mount -t tmpfs", f"-o size={size * 3 // 2}", "tmpfs", str(cache))
        hosts = f"{server.host},{sizeless.host}"
        process = child(cache, hosts, *references, references[0], within=tmpfs)
        said = [process.stdout.readline() for _ in range(4) if process.stdout]
        assert said[1].startswith("NoSpace: ")
        assert "are needed, and the disk has" in said[1]
        assert server.sent == weigh(directory)
        assert said[2].startswith("NoSpace: ")
        assert "the disk is full" in said[2]
        assert said[0] == said[3]
        seen = Path(f"/proc/{process.pid}/root{cache}")
        assert {path.partition("/")[0] for path in files(seen)} == {"models"}


def test_a_cache_that_is_there_to_read_only(
    store: Store, server: Server, directory: Path, tmp_path: Path, child: Child, mounted: Callable[..., list[str]]
) -> None:
    """An image may contain such a cache: its models can be used; fetching others is an error that says why."""
    references = [server.put(directory, "/a"), server.put(directory, "/b")]
    with store.fetch(references[0]) as held:
        cache = tmp_path / "cache"
        read_only = mounted(f"mount --bind {cache} {cache} && mount -o remount,bind,ro {cache}")
        process = child(cache, server.host, *references, within=read_only)
        said = [process.stdout.readline() for _ in range(2) if process.stdout]
    assert said[0] == f"{held.directory}\n"
    assert said[1].startswith("Unavailable: ")
    assert said[1].endswith("cannot be used: Read-only file system.\n")
