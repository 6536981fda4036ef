"""`python -m tasks.worker.check [NAME …]`: loads the models of models.toml, all or those named, as a worker would.

It reads the variables that a worker reads (celeryconfig), and needs no broker. Models are fetched into the cache if
they are not there. It prints a line for each model, and exits with 0 if all can be used, with 1 if one cannot, and with
2 if models.toml itself, a variable, or a name is wrong.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import click
import torch

from models.errors import ModelError
from models.store.store import Store
from tasks.celery import app
from tasks.environment import SettingsError
from tasks.registry.entry import Entry, RegistryError
from tasks.worker.loader import Loader


def main(names: Sequence[str]) -> int:
    """Checks the models of these names, or all; returns the exit status."""
    try:
        conf = app.conf
        offered = conf.tolk_models.current().models
        device = "cuda" if conf.tolk_gpu != "none" and torch.cuda.is_available() else "cpu"
        store = Store(conf.tolk_model_cache, budget=conf.tolk_model_cache_bytes, hosts=conf.tolk_model_hosts)
        loader = Loader(store, device, conf.tolk_precision)
    except (ModelError, RegistryError, SettingsError) as error:
        click.echo(error, err=True)
        return 2
    if unknown := [name for name in names if name not in offered]:
        click.echo(f"There is no model {unknown[0]!r} in models.toml. It has: {', '.join(offered)}.", err=True)
        return 2
    problems = [_problem(loader, entry) for name, entry in offered.items() if not names or name in names]
    return 1 if any(problems) else 0


def _problem(loader: Loader, entry: Entry) -> str | None:
    """Loads a model and prints what came of it; returns why it cannot be used, None if it can."""
    try:
        held = loader.fetch(entry, wanted=lambda: True)
        with loader.load(entry, held) as translator:
            pairs = ", ".join(f"{pair.source} → {pair.target}" for pair in entry.pairs)
            click.echo(f"{entry.name}: can be used, {pairs}, version {translator.version}, in {translator.precision}")
    except ModelError as error:
        click.echo(f"{entry.name}: cannot be used: {error}")
        return str(error)
    return None


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    sys.exit(main(sys.argv[1:]))
