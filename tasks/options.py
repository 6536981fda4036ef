"""What our workers' command line knows beyond Celery's."""

from __future__ import annotations

import click
from celery.bin.base import CeleryOption

from tasks.host.gpu import Gpu, choose
from telemetry.address import Address


def address(_ctx: click.Context, _option: click.Parameter, value: str | None) -> Address | None:
    """An option's callback: HOST:PORT."""
    try:
        return None if value is None else Address.parse(value)
    except ValueError as error:
        raise click.BadParameter(f"wanted is {error}.") from None


def _chosen(ctx: click.Context, _option: click.Parameter, value: str | None) -> Gpu | None:
    """The option's GPU, after which the worker is called unless it is told a name."""
    chosen = choose(ctx.obj.app.conf.tolk_gpu if value is None else value)
    ctx.default_map = {**(ctx.default_map or {}), "hostname": f"{chosen.nickname if chosen else 'cpu'}@%h"}
    return chosen


GPU = CeleryOption(
    ["--gpu"],
    metavar="N|none",
    callback=_chosen,
    is_eager=True,  # its word on the name comes before the name is looked for
    help_group="Worker Options",
    help="Compute on this GPU, or on the CPU. Counts what CUDA_VISIBLE_DEVICES leaves, from 0, where that is set. "
    "Default: TOLK_GPU, else the first GPU if there is one.",
)
METRICS = CeleryOption(
    ["--metrics"],
    metavar="HOST:PORT",
    callback=address,
    help_group="Worker Options",
    help="Serve /metrics, for Prometheus, and /healthz there; worker N of a pool takes PORT+N. Default: TOLK_METRICS, "
    "else nothing listens.",
)
SIBLINGS = CeleryOption(["--siblings"], type=int, default=1, hidden=True, help="Who divide this machine's memory.")
SUPERVISOR = CeleryOption(["--supervisor"], type=int, hidden=True, help="The descriptor of a pool's socket.")
