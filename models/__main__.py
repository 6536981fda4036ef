"""The command line of the models: `python -m models translate "Je vais dormir."`, `info`, `fetch`, and what makes
models (models.training): `train`, `distill`, `evaluate`.

TOLK_MODEL_CACHE        the directory in which fetched models are kept (default: tolk in the user's cache directory)
TOLK_MODEL_CACHE_BYTES  how many bytes fetched models may take there (default 20000000000)
TOLK_MODEL_HOSTS        the hosts from which models may be fetched (default huggingface.co; for example
                        models.example.com,s3://bucket)
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

from models.errors import BadInput, ModelError
from models.local import LocalTranslator
from models.store.store import BUDGET, HOSTS, Store
from models.training.command import add_commands, run_distill, run_evaluate, run_train
from models.translation.results import Translation
from text.languages import nearest

_REFERENCE = "an embedded model's name, a directory, hf:ORG/NAME, or an address of https://, s3://, gs://"
_LINES = 64  # lines of standard input that are translated together


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0 for success, 1 if a text could not be translated, 2 if the command
    as a whole failed, 130 if it was interrupted."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("models").setLevel(logging.INFO)
    try:
        return _COMMANDS[options.command](options, _store(options))
    except ModelError as error:
        print(f"python -m models: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has closed the pipe; Python would report it again when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description="Translate with a model, without a broker.")
    commands = parser.add_subparsers(dest="command", required=True)
    store = argparse.ArgumentParser(add_help=False)
    store.add_argument("--cache", metavar="DIRECTORY", help="the directory of fetched models (TOLK_MODEL_CACHE)")
    store.add_argument(
        "--allow-host",
        metavar="HOST",
        action="append",
        default=[],
        help="a host to allow in addition to TOLK_MODEL_HOSTS: HOST, HOST:PORT, s3://BUCKET or gs://BUCKET",
    )
    model = argparse.ArgumentParser(add_help=False, parents=[store])
    model.add_argument("--model", default="fr-en", help=f"{_REFERENCE} (default: fr-en)")
    model.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: cpu)")
    model.add_argument("--precision", default="auto", help="float32, bfloat16, float16, int8 (default: the fastest)")
    translate = commands.add_parser("translate", parents=[model], help="translate texts")
    translate.add_argument("texts", nargs="+", metavar="TEXT", help="a text, or - for the lines of standard input")
    translate.add_argument("--source", help="the source language's code (default: the model's)")
    translate.add_argument("--target", help="the target language's code, for a multilingual model")
    translate.add_argument("--beam", type=_count, help="beam width, 1 for greedy search (default: the model's)")
    translate.add_argument(
        "--nbest", type=_count, default=1, help="number of translations of each text, printed with scores"
    )
    translate.add_argument("--json", action="store_true", help="print one JSON object per text")
    commands.add_parser("info", parents=[model], help="describe a model")
    fetch = commands.add_parser("fetch", parents=[store], help="fetch a model and print its directory")
    fetch.add_argument("reference", metavar="REFERENCE", help=_REFERENCE)
    fetch.add_argument("--checksum", help="the checksum that the model must have, sha256:HEX")
    add_commands(commands, [store])
    return parser


def _count(argument: str) -> int:
    if not argument.isdecimal() or not 1 <= int(argument) <= 64:
        raise argparse.ArgumentTypeError(f"{argument!r} is not a number from 1 to 64")
    return int(argument)


def _store(options: argparse.Namespace) -> Store:
    directory = options.cache or os.environ.get("TOLK_MODEL_CACHE")
    budget = os.environ.get("TOLK_MODEL_CACHE_BYTES") or str(BUDGET)
    if not budget.isdecimal():
        raise BadInput(f"TOLK_MODEL_CACHE_BYTES is a number of bytes, not {budget!r}.")
    hosts = os.environ.get("TOLK_MODEL_HOSTS", ",".join(HOSTS)).split(",")
    return Store(
        Path(directory) if directory else None,
        budget=int(budget),
        hosts=[*filter(None, map(str.strip, hosts)), *options.allow_host],
    )


def _load(options: argparse.Namespace, store: Store) -> LocalTranslator:
    return LocalTranslator.load(options.model, device=options.device, precision=options.precision, store=store)


def _translate(options: argparse.Namespace, store: Store) -> int:
    failed = False
    with _load(options, store) as translator:
        is_other = options.target is not None and not nearest(options.target, [translator.target])
        if is_other and not translator.target_tokens:
            raise BadInput(f"--target {options.target}: {options.model} translates into {translator.target} only.")
        beam = options.beam or max(translator.decoding.beam, options.nbest)
        decoding = replace(translator.decoding, beam=beam, nbest=options.nbest)
        texts = _texts(options.texts)
        while some := list(islice(texts, _LINES)):
            translated = translator.translate(some, source=options.source, target=options.target, options=decoding)
            for text, translation in zip(some, translated.results, strict=True):
                print(_json(translation) if options.json else _plain(translation), flush=True)
                if translation.error:
                    print(f"python -m models: {text[:40]!a}: {translation.error}", file=sys.stderr)
                    failed = True
    return 1 if failed else 0


def _texts(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "-":
            for line in sys.stdin.buffer:  # bytes that are not UTF-8 become lone surrogates: only that text fails
                yield line.decode("utf-8", "surrogateescape").removesuffix("\n")
        else:
            yield argument


def _json(translation: Translation) -> str:
    fields = asdict(replace(translation, error=None))
    if translation.error:
        fields["error"] = {"code": translation.error.code, "message": str(translation.error)}
    return json.dumps(fields, ensure_ascii=False)


def _plain(translation: Translation) -> str:
    """The translated text (an empty line if the translation failed), then a line for each alternative."""
    others = [f"{other.score:.3f}\t{other.text}" for other in translation.alternatives]
    return "\n".join([translation.text or "", *others])


def _info(options: argparse.Namespace, store: Store) -> int:
    with _load(options, store) as translator:
        config = translator.model.config
        _print(
            {
                "model": translator.directory,
                "version": translator.version,
                "checksum": translator.checksum,
                "languages": f"{translator.source or '?'} → {translator.target or '?'}",
                "target tokens": " ".join(sorted(translator.tokenizer.target_tokens)) or "none",
                "architecture": f"Marian, {config.encoder_layers} encoder and {config.decoder_layers} decoder layers "
                f"of width {config.d_model}, {config.encoder_attention_heads} heads",
                "parameters": f"{translator.model.parameter_count:,}",
                "precision": translator.precision,
                "vocabulary": f"{config.vocab_size:,} source and {config.decoder_vocab_size:,} target tokens",
                "size": _size(translator.directory),
                "longest sentence": f"{translator.longest} tokens",
                "beam": config.num_beams,
            }
        )
    return 0


def _fetch(options: argparse.Namespace, store: Store) -> int:
    with store.fetch(options.reference, options.checksum) as held:
        _print(
            {
                "model": held.directory,
                "size": _size(held.directory),
                "version": held.checksum.version,
                "checksum": held.checksum,
            }
        )
    return 0


def _size(directory: Path) -> str:
    return f"{sum(file.stat().st_size for file in directory.iterdir() if file.is_file()) / 1e6:.1f} MB"


def _print(facts: Mapping[str, object]) -> None:
    for name, fact in facts.items():
        print(f"{name + ':':18}{fact}")


_COMMANDS = {
    "translate": _translate,
    "info": _info,
    "fetch": _fetch,
    "train": run_train,
    "distill": run_distill,
    "evaluate": run_evaluate,
}

if __name__ == "__main__":
    sys.exit(main())
