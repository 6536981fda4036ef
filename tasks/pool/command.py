"""`celery -A tasks pool`: runs a worker for each GPU, or several workers on the CPU, and restarts those that end."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from celery.bin.base import CeleryCommand
from celery.bin.worker import worker as worker_command
from celery.utils.nodenames import gethostname

from tasks.host.cores import divide, usable_cores
from tasks.host.gpu import inventory, pick, visible
from tasks.options import address
from tasks.pool.supervisor import Backoff, PoolWorker, Supervisor
from telemetry.address import Address


def on_gpus(wanted: str) -> list[PoolWorker]:
    """A worker for each GPU of `wanted`: `all` visible GPUs, or numbers such as `0,2`.

    Raises click.UsageError if there is no such GPU, or if one is named twice.
    """
    gpus = visible()
    if not gpus:
        raise click.UsageError(f"{inventory(gpus)} Use --processes to run workers on the CPU.")
    numbers = [str(place) for place in range(len(gpus))] if wanted == "all" else wanted.split(",")
    chosen = [pick(gpus, number) for number in numbers]
    if len(set(chosen)) < len(chosen):
        raise click.UsageError(f"--gpus {wanted} names a GPU twice.")
    return [_worker(gpu.nickname, number) for gpu, number in zip(chosen, numbers, strict=True)]


def on_cpu(count: int) -> list[PoolWorker]:
    """`count` workers on the CPU, among which the usable cores are divided."""
    each = divide(usable_cores(), count)
    return [_worker(f"cpu{place}", "none", cores, f"--siblings={count}") for place, cores in enumerate(each)]


def _worker(nickname: str, gpu: str, cores: set[int] | None = None, *arguments: str) -> PoolWorker:
    name = f"{nickname}@{gethostname()}"
    return PoolWorker(name, ["--gpu", gpu, "--hostname", name, *arguments], cores)


def serve_metrics(workers: Sequence[PoolWorker], first: Address) -> None:
    """Lets worker N serve its metrics on port `first` + N. Raises click.UsageError if a port would exceed 65535."""
    for place, worker in enumerate(workers):
        try:
            worker.arguments = [*worker.arguments, "--metrics", str(first.after(place))]
        except ValueError as error:
            raise click.UsageError(f"--metrics: {error}.") from None


@click.command(cls=CeleryCommand)
@click.option("--gpus", metavar="all|N,N", help="Run a worker for each of these GPUs (see worker --gpu).")
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="Run N workers on the CPU.")
@click.option("--metrics", metavar="HOST:PORT", callback=address, help="Worker N serves its metrics on PORT+N.")
@click.option("--pause", type=float, hidden=True, help="Always wait this many seconds before restarting a worker.")
@click.argument("worker_arguments", metavar="[-- WORKER ARGUMENTS]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def pool(
    ctx: click.Context,
    gpus: str | None,
    processes: int | None,
    metrics: Address | None,
    pause: float | None,
    worker_arguments: Sequence[str],
) -> None:
    """Start several workers and keep them running.

    A worker that ends is started again. After SIGTERM the workers finish the requests that they hold; after a second
    SIGTERM they hand these requests back to the broker.
    """
    common = ctx.find_root().params
    if common["app"] is None:
        raise click.UsageError("Name the application: celery -A tasks pool.")
    given, _, _ = worker_command.make_parser(ctx).parse_args(list(worker_arguments))
    if not given.keys().isdisjoint({"gpu", "hostname", "detach", "supervisor"}):
        raise click.UsageError(
            "The pool itself sets each worker's --gpu, --hostname and --supervisor, and cannot --detach: "
            "leave these options out."
        )
    if "metrics" in given:
        raise click.UsageError("Put --metrics before the --: the pool gives each worker a port of its own.")
    match gpus, processes:
        case str(), None:
            workers = on_gpus(gpus)
        case None, int():
            workers = on_cpu(processes)
        case _:
            raise click.UsageError("Use either --gpus or --processes.")
    if (first := metrics or ctx.obj.app.conf.tolk_metrics) is not None:
        serve_metrics(workers, first)
    if pause is not None:
        for each in workers:
            each.backoff = Backoff(pause, pause)
    ctx.obj.app.log.setup(loglevel="INFO")
    switches = [switch for switch in ("--quiet", "--no-color") if common[switch[2:].replace("-", "_")]]
    command = [sys.executable, "-m", "celery", "-A", common["app"], *switches, "worker", *worker_arguments]
    supervisor = Supervisor(command, workers)
    supervisor.listen()
    ctx.exit(supervisor.run())
