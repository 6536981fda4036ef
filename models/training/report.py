"""What a run shows: a page with its curves and samples, and the card of the model that landed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from models.network.marian import Marian
from models.training.cleaning import Counts
from models.training.config import Config

_WIDTH, _HEIGHT, _MARGIN = 640, 240, 44  # of a chart, in pixels
_COLOURS = (
    "#2563eb",
    "#d97706",
    "#059669",
    "#dc2626",
    "#7c3aed",
    "#0891b2",
    "#be185d",
    "#65a30d",
    "#475569",
    "#a16207",
)
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1e293b }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .7rem; border-bottom: 1px solid #cbd5e1 }
th { text-align: left } td.number { text-align: right; font-variant-numeric: tabular-nums }
svg { max-width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif; fill: #475569 }
dl.sample { margin: 1rem 0 } dl.sample dt { color: #64748b; font-size: .85rem } dl.sample dd { margin: 0 0 0 1rem }
summary { cursor: pointer } .heat td { width: 1.4rem; height: 1.4rem; padding: 0; border: 0 }
.heat th { font-weight: normal; font-size: .8rem; padding: 0 .4rem; border: 0 }
.heat thead th { writing-mode: vertical-rl }
"""


class Curve(NamedTuple):
    """A line through (step, value)."""

    name: str
    points: list[tuple[int, float]]


def read_history(path: Path) -> list[dict[str, Any]]:
    """What the run has noted, in order."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_report(config: Config, history: Path, path: Path) -> None:
    """One HTML file that needs no other."""
    notes = read_history(history)
    measured = [note for note in notes if "sets" in note]
    losses = [Curve("training", [(note["step"], note["loss"]) for note in notes if "loss" in note])]
    speeds = [Curve("tokens/s", [(note["step"], note["tokens_per_second"]) for note in notes if "loss" in note])]
    name = escape(config.name)
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>',
        f"<h1>{name}: {escape(config.source)} → {escape(config.target)}</h1>",
        f"<h2>Loss</h2><p>Cross-entropy of a target token.</p>{chart([*losses, *_curves(measured, 'loss')])}",
        f"<h2>BLEU</h2>{chart(_curves(measured, 'bleu'))}<h2>chrF</h2>{chart(_curves(measured, 'chrf'))}",
        f"<h2>Speed</h2>{chart(speeds)}",
    ]
    if measured:
        last = measured[-1]
        parts.append(f"<h2>By set, after step {last['step']:,}</h2>{_figures(last['sets'])}")
        parts.append(f"<h2>Where the last layer looks</h2>{_heat(last.get('attention'))}<h2>Translations</h2>")
        for note in reversed(measured):
            is_open = " open" if note is last else ""
            samples = "".join(_sample(*sample) for sample in note["samples"])
            parts.append(f"<details{is_open}><summary>after step {note['step']:,}</summary>{samples}</details>")
    parts.append(f"<h2>Settings</h2><pre>{escape(_settings(config))}</pre></html>")
    partial = path.with_name(f"{path.name}.part")
    partial.write_text("\n".join(parts), encoding="utf-8")
    partial.replace(path)


def _curves(measured: Iterable[Mapping[str, Any]], figure: str) -> list[Curve]:
    curves: dict[str, Curve] = {}
    for note in measured:
        for name, figures in note["sets"].items():
            curves.setdefault(name, Curve(name, [])).points.append((note["step"], figures[figure]))
    return list(curves.values())


def chart(curves: Sequence[Curve]) -> str:
    """An SVG with a legend; empty curves are left out."""
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return "<p>Nothing yet.</p>"
    points = [point for curve in curves for point in curve.points]
    right = max(1, *(step for step, _ in points))
    low, high = min(value for _, value in points), max(value for _, value in points)
    span = (high - low) or 1.0

    def place(step: int, value: float) -> tuple[float, float]:
        return (
            _MARGIN + step / right * (_WIDTH - 2 * _MARGIN),
            _HEIGHT - _MARGIN - (value - low) / span * (_HEIGHT - 2 * _MARGIN),
        )

    drawn = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 18 * -(-len(curves) // 5)}" role="img">']
    for share in (0, 0.5, 1):
        x, y = place(round(share * right), low + share * span)
        drawn.append(f'<line x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e2e8f0"/>')
        drawn.append(f'<text x="{_MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{low + share * span:.4g}</text>')
        drawn.append(f'<text x="{x:.1f}" y="{_HEIGHT - _MARGIN + 16}" text-anchor="middle">{share * right:,.0f}</text>')
    for i, curve in enumerate(curves):
        colour, places = _COLOURS[i % len(_COLOURS)], (place(*point) for point in curve.points)
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        x, y = _MARGIN + i % 5 * 116, _HEIGHT - 8 + 18 * (i // 5)
        drawn.append(f'<rect x="{x}" y="{y - 8}" width="10" height="10" fill="{colour}"/>')
        drawn.append(f'<text x="{x + 14}" y="{y + 1}">{escape(curve.name)}</text>')
    return "".join([*drawn, "</svg>"])


def _figures(sets: Mapping[str, Mapping[str, Any]]) -> str:
    heads = ("set", "loss", "BLEU", "chrF", "numbers", "holds", "runaways")
    rows = [f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"]
    for name, figures in sets.items():
        shares = (figures["numbers"], figures["holds"], figures["runaways"])
        cells = [f"{figures[key]:.2f}" for key in ("loss", "bleu", "chrf")]
        cells += ["–" if share is None else f"{share[0]} of {share[1]}" for share in shares]
        rows.append(f"<tr><th>{escape(name)}</th>{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>")
    return "".join([*rows, "</table>"])


def _heat(attention: Mapping[str, Any] | None) -> str:
    """A table whose cells are as dark as a target piece (row) looks at a source piece (column)."""
    if attention is None:
        return "<p>No short sentence.</p>"
    head = "".join(f"<th>{escape(piece)}</th>" for piece in attention["source"])
    rows = [f'<table class="heat"><thead><tr><th></th>{head}</tr></thead>']
    for piece, weights in zip(attention["target"], attention["weights"], strict=True):
        cells = "".join(f'<td style="background: rgb(37 99 235 / {weight})"></td>' for weight in weights)
        rows.append(f"<tr><th>{escape(piece)}</th>{cells}</tr>")
    return "".join([*rows, "</table>"])


def _sample(name: str, source: str, reference: str, translation: str) -> str:
    lines = (name, source), ("reference", reference), ("model", translation)
    return f'<dl class="sample">{"".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in lines)}</dl>'


def _settings(config: Config) -> str:
    tables = ("cleaning", "vocabulary", "augmentation", "network", "training", "watching", "landed")
    return "\n".join(str(getattr(config, table)) for table in tables)


def write_card(config: Config, counts: Sequence[Counts], network: Marian, history: Path, path: Path) -> None:
    """README.md of the model: what it is, what it was trained on and by whose leave, how good it was measured to be."""
    shape, training = network.config, config.training
    notes = read_history(history)
    steps = max((note["step"] for note in notes), default=0)
    parameters = sum(p.numel() for p in network.parameters())
    lines = [
        f"# {config.name}: {config.source} → {config.target}",
        "",
        f"A Marian Transformer of {parameters / 1e6:.1f} million parameters: d_model {shape.d_model}, "
        f"{shape.encoder_attention_heads} heads, {shape.encoder_layers} encoder and {shape.decoder_layers} decoder "
        f"layers, feed-forward {shape.encoder_ffn_dim}, vocabulary {shape.vocab_size:,}; float16, in the format of "
        "Hugging Face MarianMT.",
        "",
        f"Trained with `python -m models train` for {steps:,} steps of up to {training.batch_tokens:,} tokens: rate "
        f"{training.learning_rate:g}, {training.warm_up:,} steps of warm-up, {training.landing:,} of landing, dropout "
        f"{training.dropout:g}, label smoothing {training.label_smoothing:g}, averaged weights, seed {training.seed}.",
        "",
        "## Data",
        "",
        "| source | pairs kept | weight | licence | attribution |",
        "| --- | ---: | ---: | --- | --- |",
    ]
    for source, count in zip(config.sources, counts, strict=True):
        title = f"[{source.title}]({source.url})" if source.url else source.title
        lines.append(
            f"| {title} | {count.kept:,} | {source.weight:g} | {source.licence or 'not said'} | {source.attribution} |"
        )
    refused = sum(count.held_out for count in counts)
    sets = [(note["step"], note["sets"]) for note in notes if "sets" in note]
    lines += ["", f"{refused:,} pairs were refused because they share a side with a held-out set.", ""]
    if sets:
        step, last = sets[-1]
        lines += [
            "## Scores",
            "",
            f"Greedy search, up to {config.watching.sentences} sentences of each held-out set, after step {step:,}. "
            "`python -m models evaluate` measures whole sets, with confidence intervals.",
            "",
            "| set | BLEU | chrF | numbers that come through |",
            "| --- | ---: | ---: | ---: |",
            *(
                f"| {name} | {figures['bleu']:.1f} | {figures['chrf']:.1f} | "
                f"{figures['numbers'][0]} of {figures['numbers'][1]} |"
                for name, figures in last.items()
            ),
            "",
        ]
    path.write_text("\n".join(lines), encoding="utf-8")
