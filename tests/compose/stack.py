"""`make test-compose`: runs docker-compose.yml in a real Docker Engine, removes all again, and prints the results.

    python -m tests.compose.stack

Its project is `tolk-test`, on ports that are free; it touches no other. Exits with 1 where something is not as it
should be, with 2 where no engine answers. COMPOSE_FILE names other files, as for Compose itself.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.compose.prometheus import jobs, queries
from tests.faults.load import DOCUMENT, Load, recovery

REPOSITORY = Path(__file__).parent.parent.parent
PROJECT = "tolk-test"
TAG = "test"
PORTS = ("TOLK_FLOWER_PORT", "TOLK_PROMETHEUS_PORT", "TOLK_GRAFANA_PORT")
BASE = "python:3.11-slim-bookworm"
BUILT = ("web", "worker", "tests")
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode())"
NO_TORCH = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('torch', 'models'))))"
AS_ROOT = ("secrets", "rabbitmq", "postgres")  # services that start as root; the last two then switch to another user
TESTED = (
    "tests/tasks/worker/test_translate.py",
    "tests/launch/test_rabbitmq.py",
    "tests/app/database/test_transactions.py",
)
WORKERS = 2
TEXT = "La grenouille chante sous la lune."  # no other request has this text
STAGES = {"publish", "queue", "wait", "prefill", "decode", "reply"}  # the stages of every translation's trace
EMPTY = {"GPU memory", "Load duration"}  # panels that are empty without a GPU and without models on demand
RECOVERY = 30.0  # seconds after the end of a fault until every request is answered again
AFTERWARDS = 3.0  # seconds of load after that, in which nothing may fail


class Failure(Exception):
    """A check failed; the message says which."""


class Answer(NamedTuple):
    """An answer. A JSON body is decoded. If there is no answer, the status is 0 and the body says why."""

    status: int
    body: Any
    headers: Mapping[str, str]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def check(holds: object, otherwise: str) -> None:
    if not holds:
        raise Failure(otherwise)


def eventually(condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
    until = time.monotonic() + timeout
    while not condition():
        check(time.monotonic() < until, f"did not happen within {timeout:.0f} s: {what}")
        time.sleep(0.2)


def free_ports(number: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def service(container: dict[str, Any]) -> str:
    name: str = container["Config"]["Labels"]["com.docker.compose.service"]
    return name


class Stack:
    """The containers of the project. `command` calls Compose; `directory` is for the test's own files."""

    def __init__(self, directory: Path, command: list[str]) -> None:
        self.directory = directory
        self.command = command
        self.files = os.environ.get("COMPOSE_FILE", "docker-compose.yml").split(os.pathsep)
        self.init = True
        self.secret = ""  # the secret of an API key
        self.ports = dict(zip(("web", *PORTS), free_ports(1 + len(PORTS)), strict=True))
        foreign = ("TOLK_", "COMPOSE_")
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            **{name: str(self.ports[name]) for name in PORTS},
            "TOLK_PUBLISH": f"127.0.0.1:{self.ports['web']}",
            "TOLK_TAG": TAG,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['web']}"

    def compose(self, *arguments: str, **how: Any) -> bytes:
        """Runs Compose and returns its standard output. Raises Failure with the end of its output."""
        files = [option for file in self.files for option in ("--file", file)]
        options = ("--env-file", os.devnull, "--project-name", PROJECT, *files)
        return run([*self.command, *options, *arguments], env=self.environ, **how)

    def services(self) -> list[str]:
        return self.compose("--profile", "*", "config", "--services").decode().split()

    def remove(self) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans")

    def lacks(self, name: str) -> str:
        """Why a service's image cannot be pulled; empty if it can."""
        try:
            self.compose("pull", "--policy=missing", name)
        except Failure as error:
            return f"MISSING: its image cannot be had: {str(error).splitlines()[-1]}"
        return ""

    def containers(self, service: str | None = None, *, every: bool = False) -> list[dict[str, Any]]:
        """The engine's description of the running containers, or of all if `every`."""
        label = f"label=com.docker.compose.project={PROJECT}"
        named = [f"--filter=label=com.docker.compose.service={service}"] if service else []
        ids = run(["docker", "ps", "--quiet", f"--filter={label}", *named, *(["--all"] if every else [])]).split()
        found: list[dict[str, Any]] = json.loads(run(["docker", "inspect", *map(bytes.decode, ids)])) if ids else []
        return found

    def healthy(self, service: str, number: int) -> bool:
        states = [each["State"].get("Health", {}).get("Status") for each in self.containers(service)]
        return states == ["healthy"] * number

    def scale(self, workers: int) -> None:
        self.compose("up", "--detach", "--no-deps", "--no-recreate", "--wait", "--scale", f"worker={workers}", "worker")

    def get(self, address: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        try:
            with urlopen(Request(address, body, headers or {}), timeout=15) as response:
                status, text, said = response.status, response.read(), response.headers
        except HTTPError as error:
            status, text, said = error.code, error.read(), error.headers
        except (OSError, HTTPException) as error:
            return Answer(0, str(error), {})
        try:
            return Answer(status, json.loads(text), said)
        except ValueError:
            return Answer(status, text.decode(), said)

    def translate(self, text: str, secret: str) -> Answer:
        body = json.dumps({"query": DOCUMENT, "variables": {"input": {"texts": [text], "target": "en"}}}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
        return self.get(f"{self.url}/graphql", headers, body)

    def new_key(self, name: str) -> str:
        return self.compose("exec", "-T", "web", "flask", "--app", "app", "keys", "create", name).decode().strip()

    def translation(self, text: str) -> tuple[str, str]:
        """The translation of a text, and the id of the request."""
        answer = self.translate(text, self.secret)
        check(answer.status == 200 and not answer.body.get("errors"), f"{answer.status} {answer.body}")
        [translation] = answer.body["data"]["translate"]["translations"]
        return translation["text"], answer.headers["X-Request-Id"]

    def metrics(self) -> dict[str, float]:
        """The metrics of the web tier and of all workers, read in their network and summed over the workers."""
        network = f"{PROJECT}_metrics"
        workers = [each["NetworkSettings"]["Networks"][network]["IPAddress"] for each in self.containers("worker")]
        found: defaultdict[str, float] = defaultdict(float)
        for address in ("web:9100", *(f"{worker}:9101" for worker in workers)):
            text = self.compose("exec", "-T", "web", "python", "-c", FETCH, f"http://{address}/metrics").decode()
            for family in text_string_to_metric_families(text):
                for name, labels, value, *_ in family.samples:
                    found[" ".join((name, *labels.values()))] += value
        return found

    def under_load(self, name: str, fault: Callable[[], None], *, may_fail: bool = False) -> str:
        """Causes a fault under load. No request may be lost, and only the permitted errors may be returned."""
        began = time.monotonic()
        with Load(self.url, self.secret, name, rate=10, exact=False) as load:
            eventually(lambda: load.answered_since(began + 1), "an answer before the fault")
            fault()
            ended = time.monotonic()
            eventually(lambda: load.answered_since(ended), "an answer after the fault", RECOVERY)
            last = time.monotonic()
            eventually(lambda: load.answered_since(last + AFTERWARDS), "a later answer")
        fates = Counter(each.fate for each in load.outcomes)
        clean = {"answered", "failed"} if may_fail else {"answered"}
        unclean = [each for each in load.outcomes if each.fate not in clean]
        seconds = recovery(load.outcomes, ended)
        check(not unclean, f"{len(unclean)} of {len(load.outcomes)} requests, such as {unclean[:2]}")
        check(seconds <= RECOVERY, f"all is answered again only {seconds:.0f} s after")
        return f"{len(load.outcomes)} requests: {fates['answered']} answered, {fates['failed']} failed cleanly, 0 lost"


def run(command: list[str], **how: Any) -> bytes:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, **{"stdin": subprocess.DEVNULL, **how})
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace").splitlines()
        raise Failure("\n".join([f"`{' '.join(command)}` ended with {done.returncode}:", *said[-20:]]))
    return done.stdout


def basic(login: str) -> dict[str, str]:
    """The headers of HTTP basic authentication for a name and a password."""
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def build(stack: Stack) -> str:
    stack.compose("--profile", "tests", "build", *BUILT)
    run(["docker", "run", "--rm", "--network=none", f"tolk-web:{TAG}", "python", "-c", NO_TORCH])
    base, *sizes = (
        int(run(["docker", "image", "inspect", "--format={{.Size}}", name]))
        for name in (BASE, *(f"tolk-{name}:{TAG}" for name in BUILT))
    )
    said = [f"{name} {(size - base) / 1e6:.0f} MB" for name, size in zip(BUILT, sizes, strict=True)]
    return f"over the {base / 1e6:.0f} MB of {BASE}: {', '.join(said)}"


def use_init(stack: Stack) -> str:
    """Whether the engine has the program that Compose's `init: true` needs; some engines lack it."""
    try:
        run(["docker", "run", "--rm", "--init", "--network=none", "--entrypoint=true", f"tolk-web:{TAG}"])
    except Failure as error:
        check("docker-init" in str(error), str(error))
        override = stack.directory / "no-init.yml"
        override.write_text(json.dumps({"services": {name: {"init": False} for name in stack.services()}}))
        stack.files.append(str(override))
        stack.init = False
        return "MISSING: this engine has no docker-init, so all runs without"
    return "this engine has one"


def start(stack: Stack) -> str:
    stack.compose("up", "--detach", "--wait", "--scale", f"worker={WORKERS}")
    running = Counter(service(each) for each in stack.containers())
    check(
        running == Counter(rabbitmq=1, postgres=1, worker=WORKERS, jobs=1, web=1, flower=1),
        f"these run: {dict(running)}",
    )
    return f"healthy: {', '.join(f'{number} {name}' for name, number in sorted(running.items()))}"


def harden(stack: Stack) -> str:
    """Checks that the engine applies the restrictions of docker-compose.yml."""
    containers = stack.containers(every=True)
    for each in containers:
        name, host, user = service(each), each["HostConfig"], each["Config"]["User"]
        check(host["ReadonlyRootfs"], f"{name} can write to its root file system")
        check(host["CapDrop"] == ["ALL"], f"{name} keeps capabilities")
        check(any(option.startswith("no-new-privileges") for option in host["SecurityOpt"]), f"{name} gets privileges")
        check(host["Memory"] > 0 and host["PidsLimit"] > 0, f"{name} has no limits")
        check(bool(host["Init"]) == stack.init, f"{name} has no init")
        check(name in AS_ROOT or user == "10001:10001", f"{name} runs as {user or 'root'}")
        for port, bindings in (host["PortBindings"] or {}).items():
            check(name in ("web", "flower"), f"{name} is published")
            check(all(bound["HostIp"] == "127.0.0.1" for bound in bindings), f"{name} publishes {port} off loopback")
    for name in ("web", "worker", "flower"):
        modes = stack.compose("exec", "-T", name, "sh", "-c", "stat --format=%a:%u /run/secrets/*").decode().split()
        check(set(modes) == {"400:10001"}, f"the secrets of {name} are {modes}")
    for network in ("broker", "database", "metrics"):
        internal = run(["docker", "network", "inspect", "--format={{.Internal}}", f"{PROJECT}_{network}"]).strip()
        check(internal == b"true", f"the network {network} leads out")
    return f"{len(containers)} containers: read-only, no capabilities, limits, loopback; secrets 0400"


def translate(stack: Stack) -> str:
    eventually(lambda: stack.get(f"{stack.url}/readyz").status == 200, "the web tier is ready")
    check(stack.translate("Il pleut.", "").status == 401, "a key is not asked for")
    stack.secret = stack.new_key("load")
    translation, _ = stack.translation("Il pleut.")
    return f"Il pleut. → {translation}"


def spans(trace: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield trace
    for child in trace["children"]:
        yield from spans(child)


def follow(stack: Stack) -> str:
    """Checks that a request is found by its id: its trace, and its lines in the logs of both tiers."""
    translation, request_id = stack.translation(TEXT)
    said = stack.compose("exec", "-T", "web", "flask", "--app", "app", "trace", "--json", request_id)
    took = {span["name"]: 1000 * span["duration"] for span in spans(json.loads(said))}
    check(took.keys() >= STAGES, f"the trace has {', '.join(took)}")
    for name in ("web", "worker"):
        lines = stack.compose("logs", "--no-log-prefix", "--no-color", name).decode().splitlines()
        foreign = [line for line in lines if not line.startswith("{")]
        check(not foreign, f"the log of {name} has lines that are not JSON: {foreign[:3]}")
        told = [line for line in lines if json.loads(line).get("request_id") == request_id]
        check(told, f"{name} does not log the request")
        texts = [line for line in lines if TEXT in line or translation in line]
        check(not texts, f"the log of {name} tells what was translated: {texts[:1]}")
    return f"{', '.join(f'{name} {ms:.0f} ms' for name, ms in took.items() if name in STAGES)}; in both logs, textless"


def measure(stack: Stack) -> str:
    """Checks that the metrics count the requests of all processes and workers, and are not public."""
    before = stack.metrics()
    number = 20
    for _ in range(number):
        stack.translation(TEXT)
    check(stack.translate(TEXT, "").status == 401, "a key is not asked for")
    wanted = {
        **dict.fromkeys(("tolk_requests_total OK", "tolk_texts_total", "tolk_request_seconds_count"), number),
        **{f"tolk_stage_seconds_count {stage}": number for stage in STAGES},
        **dict.fromkeys(("tolk_tasks_total OK", "tolk_task_seconds_count", "tolk_sentences_total fr-en"), number),
        "tolk_characters_total": number * len(TEXT),
        "tolk_requests_total UNAUTHENTICATED": 1,
        "tolk_requests_total INTERNAL": 0,
    }
    wanted["tolk_request_seconds_count"] += 1

    def counted() -> dict[str, float]:
        now = stack.metrics()
        return {name: now[name] - before[name] for name in wanted}

    eventually(lambda: counted() == wanted, f"these have grown by so much: {wanted}")
    check(stack.metrics()["tolk_workers"] == WORKERS, f"the web tier does not see {WORKERS} workers")
    for headers in ({}, {"Host": "web:9100"}):
        status = stack.get(f"{stack.url}/metrics", headers).status
        check(status == 404, f"/metrics is open to everybody: {status}")
    return f"{number} translations, and {len(wanted)} counters of both tiers say so; 404 from outside"


def open_flower(stack: Stack) -> str:
    address = f"http://127.0.0.1:{stack.ports['TOLK_FLOWER_PORT']}"
    status = stack.get(f"{address}/api/workers").status
    check(status == 401, f"without a login Flower answers {status}")
    headers = basic(stack.compose("exec", "-T", "flower", "cat", "/run/secrets/login").decode())

    def workers() -> int:
        status, found, _ = stack.get(f"{address}/workers?json=1", headers)
        return len(found["data"]) if status == 200 else 0

    eventually(lambda: workers() == WORKERS, f"Flower shows {WORKERS} workers")
    status, page, _ = stack.get(f"{address}/broker", headers)
    check(status == 200 and "tolk.translate.fr-en.interactive" in page, f"Flower's page of the broker: {status}")
    return f"{WORKERS} workers, and the queues; nothing without a login"


def scale(stack: Stack) -> str:
    stack.scale(4)
    names = {each["Id"] for each in stack.containers("worker")}
    seen = stack.under_load("scaled", lambda: None)
    stack.scale(WORKERS)
    eventually(lambda: len(stack.containers("worker")) == WORKERS, "two workers have ended")
    return f"{len(names)} healthy; {seen}"


def kill(stack: Stack) -> str:
    """As if a worker had crashed: its container ends, and the engine starts it again."""
    first = stack.containers("worker")[0]
    victim, started = first["Id"], first["State"]["StartedAt"]

    def is_back() -> bool:  # the engine calls a container healthy until it has seen its end
        begun = {each["Id"]: each["State"]["StartedAt"] for each in stack.containers("worker")}
        return begun.get(victim, started) != started and stack.healthy("worker", WORKERS)

    def fault() -> None:
        if stack.init:
            run(["docker", "exec", victim, "sh", "-c", "kill -9 -1"])
        else:  # the first process cannot be killed from inside, and the engine restarts nothing that it has killed
            run(["docker", "kill", victim])
            run(["docker", "start", victim])
        eventually(is_back, "it is started again, and as many workers are healthy as before", 120)

    seen = stack.under_load("killed", fault)
    [restarts] = [each["RestartCount"] for each in stack.containers("worker") if each["Id"] == victim]
    check(restarts or not stack.init, "it was not started again")
    return seen


def restart_broker(stack: Stack) -> str:
    def fault() -> None:
        stack.compose("restart", "rabbitmq")
        eventually(lambda: stack.healthy("rabbitmq", 1), "the broker is healthy")

    return stack.under_load("broker", fault, may_fail=True)


def roll(stack: Stack) -> str:
    """Starts new workers and then stops the old ones one after the other, as for a new image."""
    old = [each["Id"] for each in stack.containers("worker")]

    def fault() -> None:
        stack.scale(2 * WORKERS)
        for each in old:
            run(["docker", "stop", each])
            run(["docker", "rm", each])

    seen = stack.under_load("rolled", fault)
    check(stack.healthy("worker", WORKERS), "the new workers are not healthy")
    return seen


def back_up(stack: Stack) -> str:
    dump = stack.compose("exec", "-T", "postgres", "pg_dump", "--username=tolk", "--format=custom", "tolk")
    later = stack.new_key("later")
    check(stack.translate("Il neige.", later).status == 200, "the later key is not taken")
    options = ("--username=tolk", "--dbname=tolk", "--clean", "--if-exists", "--single-transaction", "--exit-on-error")
    stack.compose("exec", "-T", "postgres", "pg_restore", *options, stdin=None, input=dump)
    eventually(lambda: stack.translate("Il neige.", later).status == 401, "the later key is refused", 20)
    stack.translation("Il neige.")
    return f"{len(dump)} bytes: keys made before it hold, those made after are gone"


def open_prometheus(stack: Stack) -> str:
    if why := stack.lacks("prometheus"):
        return why
    stack.compose("up", "--detach", "--no-recreate", "--no-deps", "--wait", "prometheus")
    address = f"http://127.0.0.1:{stack.ports['TOLK_PROMETHEUS_PORT']}/api/v1"

    def ask(what: str) -> Any:
        status, found, _ = stack.get(f"{address}/{what}")
        check(status == 200, f"Prometheus' {what}: {status} {found}")
        return found["data"]

    def targets() -> Counter[tuple[str, str]]:
        return Counter((each["labels"]["job"], each["health"]) for each in ask("targets?state=active")["activeTargets"])

    def empty() -> set[str]:
        """The dashboard's panels with a query that has no result."""
        return {
            name.partition(":")[0]
            for name, (expression, _) in queries(rate_interval="1m").items()
            if all(each["value"][1] == "NaN" for each in ask(f"query?query={quote(expression)}")["result"])
        }

    def told() -> set[str]:
        return {each["labels"]["alertname"] for each in ask("alerts")["alerts"] if each["state"] == "firing"}

    wanted = Counter({(job, "up"): WORKERS if job == "tolk-worker" else 1 for job in jobs()})
    eventually(lambda: targets() == wanted, f"Prometheus reaches {dict(wanted)}")
    seen = stack.under_load("watched", lambda: eventually(lambda: empty() <= EMPTY, "every panel shows something", 120))
    stack.compose("stop", "worker")
    eventually(lambda: "TolkNoWorker" in told(), "TolkNoWorker fires without a worker", 180)
    stack.scale(WORKERS)
    eventually(lambda: "TolkNoWorker" not in told(), "TolkNoWorker ends with a worker", 120)
    return f"{wanted.total()} targets are up; every panel shows something, under {seen}; TolkNoWorker fires, and ends"


def open_grafana(stack: Stack) -> str:
    if why := stack.lacks("grafana"):
        return why
    stack.compose("up", "--detach", "--no-recreate", "--no-deps", "--wait", "grafana")
    address = f"http://127.0.0.1:{stack.ports['TOLK_GRAFANA_PORT']}/api/search?type=dash-db"
    check(stack.get(address).status == 401, "Grafana wants no login")
    password = stack.compose("exec", "-T", "grafana", "cat", "/run/secrets/password").decode()
    status, dashboards, _ = stack.get(address, basic(f"admin:{password}"))
    check(status == 200 and dashboards, f"Grafana's dashboards: {status} {dashboards}")
    return ", ".join(each["title"] for each in dashboards)


def run_tests(stack: Stack) -> str:
    command = (".venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTED)
    return stack.compose("run", "--rm", "tests", *command).decode().strip().splitlines()[-1]


def stop(stack: Stack) -> str:
    began = time.monotonic()
    stack.compose("stop")
    codes = {service(each): each["State"]["ExitCode"] for each in stack.containers(every=True)}
    seconds = time.monotonic() - began
    check(not any(codes.values()), f"exit codes {codes}")
    stack.remove()
    left = run(["docker", "volume", "ls", "--quiet", f"--filter=label=com.docker.compose.project={PROJECT}"]).split()
    check(not left and not stack.containers(every=True), f"something is left: {left}")
    return f"all ended by themselves within {seconds:.0f} s; nothing is left"


STEPS = {
    "build": build,
    "init": use_init,
    "up": start,
    "hardening": harden,
    "translate": translate,
    "trace and logs": follow,
    "metrics": measure,
    "Flower": open_flower,
    "scale to 4 workers": scale,
    "kill -9 of a worker": kill,
    "restart of the broker": restart_broker,
    "roll of the workers": roll,
    "backup and restore": back_up,
    "Prometheus": open_prometheus,
    "Grafana": open_grafana,
    "tests in a container": run_tests,
    "down": stop,
}


def composer() -> list[str]:
    """The command of Compose on this machine. Raises Failure if no engine answers."""
    if shutil.which("docker") is None:
        raise Failure("No Docker Engine answers: there is no docker command (https://docs.docker.com/engine/install/).")
    try:
        run(["docker", "version"])
    except Failure as error:
        raise Failure(f"No Docker Engine answers: {str(error).splitlines()[-1]}") from error
    has_compose = not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    return ["docker", "compose"] if has_compose else [str(Path(sys.executable).with_name("docker-compose"))]


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command = composer()
    except Failure as error:
        say(str(error))
        return 2
    rows, failed = [], False
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory), command)
        stack.remove()  # leftovers of a run that was killed
        try:
            for name, step in STEPS.items():
                say(f"{name} ...")
                began = time.monotonic()
                seen = step(stack)
                rows.append((name, time.monotonic() - began, seen))
        except Failure as error:
            failed = True
            rows.append((name, time.monotonic() - began, f"FAILED: {error}"))
            say(stack.compose("logs", "--tail=30").decode(errors="replace"))
        finally:
            stack.remove()
    say("\n| step | s | seen |\n| --- | ---: | --- |")
    for name, seconds, seen in rows:
        say(f"| {name} | {seconds:.0f} | {seen} |")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
