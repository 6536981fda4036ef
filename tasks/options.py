"""The options that Tolk adds to the command line of Celery's worker."""

from __future__ import annotations

import click
from celery.bin.base import CeleryOption

from tasks.host.gpu import Gpu, choose
from telemetry.address import Address


def address(_ctx: click.Context, _option: click.Parameter, value: str | None) -> Address | None:
    """The callback of an option whose value is HOST:PORT."""
    try:
        return None if value is None else Address.parse(value)
    except ValueError as error:
        raise click.BadParameter(f"expected {error}.") from None


def _chosen(ctx: click.Context, _option: click.Parameter, value: str | None) -> Gpu | None:
    """The GPU that --gpu or TOLK_GPU names, None for the CPU. Without --hostname, the worker is named after it."""
    chosen = choose(ctx.obj.app.conf.tolk_gpu if value is None else value)
    ctx.default_map = {**(ctx.default_map or {}), "hostname": f"{chosen.nickname if chosen else 'cpu'}@%h"}
    return chosen


GPU = CeleryOption(
    ["--gpu"],
    metavar="N|none",
    callback=_chosen,
    is_eager=True,  # it sets the default of --hostname, so it has to be processed first
    help_group="Worker Options",
    help="Compute on GPU N, or on the CPU. GPUs are numbered from 0; if CUDA_VISIBLE_DEVICES is set, only the GPUs "
    "that it names count. Default: TOLK_GPU, else the first GPU if there is one.",
)
METRICS = CeleryOption(
    ["--metrics"],
    metavar="HOST:PORT",
    callback=address,
    help_group="Worker Options",
    help="Serve /metrics, for Prometheus, and /healthz at this address. Worker N of a pool uses PORT+N. "
    "Default: TOLK_METRICS; without it, neither is served.",
)
SIBLINGS = CeleryOption(["--siblings"], type=int, default=1, hidden=True, help="Workers that share the memory.")
SUPERVISOR = CeleryOption(["--supervisor"], type=int, hidden=True, help="File descriptor of the socket to the pool.")
