"""The loop of a training.

The rate of learning rises, stays, and falls only for a landing, which starts from the trunk of the run and leaves it as
it is: a run has no end of its own, and can go on after it has landed (Hu et al. 2024, https://arxiv.org/abs/2404.06395,
call this warm-up, stable, decay).
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from models.engine.settings import cores
from models.errors import BadInput, ModelError
from models.network.config import MarianConfig
from models.network.generation import Generation
from models.network.marian import Marian
from models.training.augmentation import Augmenter
from models.training.batches import Batch, Pools, stream
from models.training.checkpoint import State
from models.training.config import Config, Training
from models.training.export import export
from models.training.lexicon import Lexicon
from models.training.measure import measure
from models.training.network import clear_pad_gradients, cross_entropy, forward, guided, trainable
from models.training.optimizer import Optimizer, optimizer_of
from models.training.prepare import Prepared, prepare
from models.training.report import write_card, write_report
from models.training.run import Run
from models.training.spans import Aligner
from models.training.start import begin

Update = Callable[..., tuple[float, int]]

logger = logging.getLogger(__name__)


class Stopped(ModelError):
    """Somebody ended the run before it had landed; what it has done is kept."""


def train(
    config: Config, data: Path, run: Path, output: Path, start: Path | None = None, *, update: Update | None = None
) -> None:
    """Trains until `config.training.steps` and lands the model in `output`, with its card and its report.

    What is there of an earlier call in `run` goes on; whatever ends the process, no more than `keep_every` steps are
    lost. `data` is the directory that paths in the configuration are relative to; `start` is the directory of a model
    to begin with; `update` does a step, as `step` does. Raises Stopped after SIGTERM or SIGINT, BadInput for data that
    cannot be trained on.
    """
    with Run(run).alone():
        _train(config, data, Run(run), output, start, update or step)


def _train(config: Config, data: Path, run: Run, output: Path, start: Path | None, update: Update) -> None:
    training, watching = config.training, config.watching
    torch.set_num_threads(training.threads or cores())
    prepared = prepare(config, data, run.directory, start)
    state = run.resume(training.steps, prepared.fingerprint)
    network = _network(state, config, prepared, start).to(training.device)
    optimizer = optimizer_of(network, training)
    if state.step:
        optimizer.load_state_dict(state.optimizer)
    average = {name: weights.to(training.device) for name, weights in state.average.items()} or {
        name: weights.detach().clone() for name, weights in network.state_dict().items()
    }
    weights = [source.weight for source in config.sources]
    aligner = Aligner(prepared.vocabulary, prepared.lexicon) if prepared.lexicon else None
    languages = (config.source, config.target)
    ways = [languages, languages[::-1]] if config.both_ways else [languages]
    augmenters = [Augmenter(config.augmentation, prepared.vocabulary.symbols, way, aligner) for way in ways]
    pools = Pools(prepared.sources, weights, prepared.vocabulary, augmenters, training)
    logger.info(
        "%s: %s parameters, %d threads, %s; from step %d",
        *(config.name, f"{sum(p.numel() for p in network.parameters()):,}", torch.get_num_threads()),
        *("bfloat16" if autocasts(training) else "float32", state.step),
    )

    def keep() -> None:
        state.network, state.average, state.optimizer = network.state_dict(), average, optimizer.state_dict()
        state.shape = asdict(network.config)
        run.keep(state)

    def watch() -> None:
        threads = torch.get_num_threads()
        found = measure(network, average, config, prepared, run.directory / "snapshot")
        torch.set_num_threads(threads)  # a translator sets it to one
        run.note(step=state.step, **found)
        write_report(config, run.history, run.directory / "report.html")

    end = training.steps + training.landing if state.landing_from is None else state.landing_from + training.landing
    with _signalled() as is_stopped, tqdm(total=end, initial=state.step, unit="step", disable=None) as bar:
        for pool, batch_number, batch in stream(pools, state.pool, state.batch, training.workers):
            if state.landing_from is None and state.step >= training.steps:
                keep()
                state.landing_from = state.step
                bar.total = end = state.step + training.landing
                logger.info("landing from step %s", f"{state.step:,}")
            if state.step >= end:
                break
            began = time.perf_counter()
            rate = learning_rate(training, state.step, state.landing_from)
            loss, tokens = update(network, optimizer, batch, training, state.step, rate, prepared.lexicon)
            _average(average, network, training.average, state.step)
            state.step, state.pool, state.batch = state.step + 1, pool, batch_number
            state.loss, state.tokens = state.loss + loss, state.tokens + tokens
            state.seconds += time.perf_counter() - began
            bar.update()
            if state.step % watching.print_every == 0 or state.step == end:
                _say(bar, run, state, rate, end, state.step % watching.print_every or watching.print_every)
            if state.step % watching.measure_every == 0 or state.step == end:
                watch()  # before it is kept, or a run that is killed in between would never be measured here
            if state.step % watching.keep_every == 0 or is_stopped():
                keep()
            if is_stopped():
                raise Stopped(f"{config.name}: stopped at step {state.step:,}; the same command goes on from there.")
    keep()
    export(average, network.config, prepared.vocabulary.directory, output, **prepared.vocabulary.tokenizer(config))
    write_card(config, prepared.counts, network, run.history, output / "README.md")
    write_report(config, run.history, output / "report.html")
    logger.info("%s: landed in %s", config.name, output)


def learning_rate(training: Training, step: int, landing_from: int | None) -> float:
    """Of the step after `step` of them."""
    rate = training.learning_rate * min(1.0, (step + 1) / training.warm_up)
    return rate if landing_from is None else rate * (1 - (step - landing_from) / training.landing)


def step(
    network: Marian,
    optimizer: Optimizer,
    batch: Batch,
    training: Training,
    number: int,
    rate: float,
    lexicon: Lexicon | None = None,
) -> tuple[float, int]:
    """One update. Returns the cross-entropy summed over the target tokens, and how many these are.

    What is random is a function of the seed and the step's number. Raises BadInput where the loss is no number.
    """
    torch.manual_seed(training.seed * 1_000_003 + number)
    device = torch.device(training.device)
    is_guided = training.guided > 0 and number < training.guided_steps and lexicon is not None
    sources, inputs, targets = (ids.to(device) for ids in batch)
    tokens = int((batch.targets != network.config.pad_token_id).sum())
    with torch.autocast(device.type, torch.bfloat16, enabled=autocasts(training)):
        hidden, attention = forward(network, sources, inputs, dropout=training.dropout, with_attention=is_guided)
        loss, plain = cross_entropy(network, hidden, targets, training.label_smoothing)
    if attention is not None and lexicon is not None:
        aligned = lexicon.alignment(batch.sources.numpy(), batch.targets.numpy(), network.config.pad_token_id)
        loss = loss + training.guided * guided(attention, torch.from_numpy(aligned).to(device))
    torch.autograd.backward(loss / tokens)
    clear_pad_gradients(network)
    torch.nn.utils.clip_grad_norm_(network.parameters(), training.clip)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    said = plain.item()
    if not math.isfinite(said):
        raise BadInput(f"The loss is {said} at step {number}: lower training.learning_rate, or clip more.")
    return said, tokens


def autocasts(training: Training) -> bool:
    """Whether products are made in bfloat16."""
    if training.precision != "auto":
        return training.precision == "bfloat16"
    if torch.device(training.device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return torch.cpu._is_avx512_bf16_supported()


def _average(average: dict[str, Tensor], network: Marian, decay: float, step: int) -> None:
    """An exponential moving average, of fewer steps while there are few."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, weights in network.state_dict().items():
            average[name].lerp_(weights, share)


def _network(state: State, config: Config, prepared: Prepared, start: Path | None) -> Marian:
    if not state.step:
        return begin(config, prepared.vocabulary, start)
    generation = Generation(**state.shape.get("generation", {}))  # checkpoints of earlier releases have none
    network = trainable(Marian(MarianConfig(**{**state.shape, "generation": generation})))
    network.load_state_dict(state.network)
    return network


@contextmanager
def _signalled() -> Iterator[Any]:
    """Whether SIGTERM or SIGINT has come; a second one ends the process as usual."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped.is_set
        return

    def stop(number: int, _: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(bar: Any, run: Run, state: State, rate: float, end: int, steps: int) -> None:
    """What the last `steps` brought, on the terminal and in the history."""
    loss, speed = state.loss / state.tokens, state.tokens / state.seconds
    left = timedelta(seconds=round((end - state.step) * state.seconds / steps))
    said = f"step {state.step:,} of {end:,}  loss {loss:.3f}  rate {rate:.2e}  {speed:,.0f} tokens/s  {left} left"
    bar.set_postfix_str(said) if not bar.disable else logger.info("%s", said)
    run.note(step=state.step, loss=loss, rate=rate, tokens_per_second=round(speed, 1))
    state.loss, state.tokens, state.seconds = 0.0, 0, 0.0


def with_steps(config: Config, steps: int | None) -> Config:
    return config if steps is None else replace(config, training=replace(config.training, steps=steps))
