"""The command line of the models: `python -m models translate "Je vais dormir."` and `python -m models info`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice

from models.errors import BadInput, ModelError
from models.local import LocalTranslator, Translation, locate

_LINES = 64  # of standard input, translated together


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if all went well, 1 if a text has no translation, 2 if the command cannot be carried out."""
    options = _parser().parse_args(arguments)
    try:
        return _translate(options) if options.command == "translate" else _info(options)
    except ModelError as error:
        print(f"python -m models: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has enough; Python would complain once more when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description="Translate with a model, without a broker.")
    commands = parser.add_subparsers(dest="command", required=True)
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("--model", default="fr-en", help="an embedded model's name, or a directory (default: fr-en)")
    model.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: cpu)")
    model.add_argument("--precision", default="auto", help="float32, bfloat16, float16, int8 (default: the fastest)")
    translate = commands.add_parser("translate", parents=[model], help="translate texts")
    translate.add_argument("texts", nargs="+", metavar="TEXT", help="a text; - for every line of standard input")
    translate.add_argument("--source", help="the source language's code (default: the model's)")
    translate.add_argument("--target", help="the target language's code, for a multilingual model")
    translate.add_argument("--beam", type=_count, help="beam width, 1 for greedy search (default: the model's)")
    translate.add_argument(
        "--nbest", type=_count, default=1, help="how many translations of each text, with their scores"
    )
    translate.add_argument("--json", action="store_true", help="one JSON object per text")
    commands.add_parser("info", parents=[model], help="say what a model is")
    return parser


def _count(argument: str) -> int:
    if not argument.isdecimal() or not 1 <= int(argument) <= 64:
        raise argparse.ArgumentTypeError(f"{argument!r} is no number from 1 to 64")
    return int(argument)


def _translate(options: argparse.Namespace) -> int:
    failed = False
    with LocalTranslator.load(options.model, device=options.device, precision=options.precision) as translator:
        if options.target not in (None, translator.target) and not translator.target_tokens:
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
            for line in sys.stdin.buffer:  # what is not UTF-8 becomes lone surrogates, and those that text's error
                yield line.decode("utf-8", "surrogateescape").removesuffix("\n")
        else:
            yield argument


def _json(translation: Translation) -> str:
    fields = asdict(replace(translation, error=None))
    if translation.error:
        fields["error"] = {"code": translation.error.code, "message": str(translation.error)}
    return json.dumps(fields, ensure_ascii=False)


def _plain(translation: Translation) -> str:
    """The text, empty where it failed, and a line for each alternative."""
    others = [f"{other.score:.3f}\t{other.text}" for other in translation.alternatives]
    return "\n".join([translation.text or "", *others])


def _info(options: argparse.Namespace) -> int:
    directory = locate(options.model)
    with LocalTranslator.load(options.model, device=options.device, precision=options.precision) as translator:
        config = translator.model.config
        facts = {
            "model": directory,
            "version": translator.version,
            "languages": f"{translator.source or '?'} → {translator.target or '?'}",
            "target tokens": " ".join(sorted(translator.tokenizer.target_tokens)) or "none",
            "architecture": f"Marian, {config.encoder_layers} encoder and {config.decoder_layers} decoder layers of "
            f"width {config.d_model}, {config.encoder_attention_heads} heads",
            "parameters": f"{translator.model.parameter_count:,}",
            "precision": translator.precision,
            "vocabulary": f"{config.vocab_size:,} source and {config.decoder_vocab_size:,} target tokens",
            "size": f"{sum(file.stat().st_size for file in directory.iterdir() if file.is_file()) / 1e6:.1f} MB",
            "longest sentence": f"{translator.longest} tokens",
            "beam": config.num_beams,
        }
    for name, fact in facts.items():
        print(f"{name + ':':18}{fact}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
