"""`celery -A tasks pool`: a worker per GPU, or several on the CPU, started, watched, and started again."""

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
    """A worker per GPU of `0,2`, or of `all` that are visible. Raises click.UsageError."""
    gpus = visible()
    if not gpus:
        raise click.UsageError(f"{inventory(gpus)} Use --processes.")
    numbers = [str(place) for place in range(len(gpus))] if wanted == "all" else wanted.split(",")
    chosen = [pick(gpus, number) for number in numbers]
    if len(set(chosen)) < len(chosen):
        raise click.UsageError(f"--gpus {wanted} names a GPU twice.")
    return [_worker(gpu.nickname, number) for gpu, number in zip(chosen, numbers, strict=True)]


def on_cpu(count: int) -> list[PoolWorker]:
    """So many workers, among which the cores are divided."""
    each = divide(usable_cores(), count)
    return [_worker(f"cpu{place}", "none", cores, f"--siblings={count}") for place, cores in enumerate(each)]


def _worker(nickname: str, gpu: str, cores: set[int] | None = None, *arguments: str) -> PoolWorker:
    name = f"{nickname}@{gethostname()}"
    return PoolWorker(name, ["--gpu", gpu, "--hostname", name, *arguments], cores)


def serve_metrics(workers: Sequence[PoolWorker], first: Address) -> None:
    """Has each worker serve its metrics, one port after the other. Raises click.UsageError where there are too few."""
    for place, worker in enumerate(workers):
        try:
            worker.arguments = [*worker.arguments, "--metrics", str(first.after(place))]
        except ValueError as error:
            raise click.UsageError(f"--metrics: {error}.") from None


@click.command(cls=CeleryCommand)
@click.option("--gpus", metavar="all|N,N", help="A worker per GPU, of all, or of these (see worker --gpu).")
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="So many workers, on the CPU.")
@click.option("--metrics", metavar="HOST:PORT", callback=address, help="Where worker 0 serves its; N takes PORT+N.")
@click.option("--pause", type=float, hidden=True, help="Start a worker again after so many seconds, however often.")
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

    A worker that ends is started again. SIGTERM lets all finish what they hold; a second one makes them hand it back.
    """
    common = ctx.find_root().params
    if common["app"] is None:
        raise click.UsageError("Say whose workers: celery -A tasks pool.")
    given, _, _ = worker_command.make_parser(ctx).parse_args(list(worker_arguments))
    if not given.keys().isdisjoint({"gpu", "hostname", "detach", "supervisor"}):
        raise click.UsageError("The pool itself says which GPU a worker has, and its name, and stays with it.")
    if "metrics" in given:
        raise click.UsageError("Say --metrics before the --: the workers share it out among them.")
    match gpus, processes:
        case str(), None:
            workers = on_gpus(gpus)
        case None, int():
            workers = on_cpu(processes)
        case _:
            raise click.UsageError("Say either --gpus or --processes.")
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
