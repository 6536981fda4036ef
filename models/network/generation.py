"""What generation_config.json says of decoding, as greedy and beam search of transformers read it.

Every key there is honoured, refused because it asks for what Tolk does not do, or known to change no translation. Any
other is logged once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from models.checkpoint.files import quote, read_json
from models.errors import UnknownModel

FILE = "generation_config.json"
LARGEST_BEAM = 64
LARGEST_LENGTH = 1 << 20  # tokens
LARGEST_PENALTY = 10.0  # absolute value of length_penalty; with more, ranks would leave the range of float32

# What config.json says, too. It counts where generation_config.json names none of such a group.
_SPECIAL = ({"eos_token_id"}, {"decoder_start_token_id", "bos_token_id"})
# Keys that would change translations in a way that Tolk does not offer, with the values that change nothing.
_REFUSED: dict[str, tuple[object, ...]] = {
    "do_sample": (False,),
    "num_beam_groups": (1,),
    "diversity_penalty": (0,),
    "penalty_alpha": (0,),
    "guidance_scale": (1,),
    "remove_invalid_values": (False,),
    "token_healing": (False,),
    "constraints": (),
    "custom_generate": (),
    "dola_layers": (),
    "exponential_decay_length_penalty": (),
    "force_words_ids": (),
    "forced_decoder_ids": (),
    "max_time": (),
    "sequence_bias": (),
    "stop_strings": (),
    "watermarking_config": (),
}
_HONOURED = {
    *("bad_words_ids", "begin_suppress_tokens", "early_stopping", "encoder_no_repeat_ngram_size"),
    *("encoder_repetition_penalty", "forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length"),
    *("max_new_tokens", "min_length", "min_new_tokens", "no_repeat_ngram_size", "num_beams", "renormalize_logits"),
    *("repetition_penalty", "suppress_tokens"),
    *("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id"),
}
_HARMLESS = {  # of sampling, of what generate returns, of caches and faster ways to the same tokens, and of files
    *("epsilon_cutoff", "eta_cutoff", "min_p", "temperature", "top_h", "top_k", "top_p", "typical_p"),
    *("num_return_sequences", "output_attentions", "output_hidden_states", "output_logits", "output_scores"),
    *("return_dict_in_generate", "return_legacy_cache"),
    *("cache_config", "cache_implementation", "compile_config", "continuous_batching_config", "disable_compile"),
    *("low_memory", "max_cache_len", "prefill_chunk_size", "use_cache"),
    *("assistant_confidence_threshold", "assistant_early_exit", "assistant_ensemble_weight", "assistant_lookbehind"),
    *("is_assistant", "max_matching_ngram_size", "num_assistant_tokens", "num_assistant_tokens_schedule"),
    *("prompt_lookup_num_tokens", "speculation_type", "target_lookbehind", "use_mtp"),
    *("_commit_hash", "_from_model_config", "generation_kwargs", "transformers_version"),
}
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Generation:
    """The options of decoding of a model, under their names in generation_config.json; without arguments, what they are
    where no file names them.

    `bad_words`: the bad_words_ids of two tokens or more. `min_length` and MarianConfig's `max_length` count the start
    token.
    """

    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    min_length: int = 0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    encoder_repetition_penalty: float = 1.0
    bad_words: tuple[tuple[int, ...], ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    renormalize_logits: bool = False

    @property
    def penalizes(self) -> bool:
        """Whether scores depend on the tokens before, other than by a ban."""
        return self.repetition_penalty != 1 or self.encoder_repetition_penalty != 1

    @classmethod
    def of(cls, said: Said) -> Self:
        """Raises UnknownModel, which names the key, for a value that does not fit."""
        shortest = said.count("min_length", 0)
        if (more := said.count("min_new_tokens", -1)) >= 0:
            shortest = more + 1
        return cls(
            length_penalty=said.number(
                "length_penalty", f"at most {LARGEST_PENALTY:g}", lambda v: abs(v) <= LARGEST_PENALTY
            ),
            early_stopping=said.value(
                "early_stopping", False, 'true, false or "never"', lambda v: v == "never" or type(v) is bool
            ),
            min_length=shortest,
            no_repeat_ngram_size=said.count("no_repeat_ngram_size", 0),
            encoder_no_repeat_ngram_size=said.count("encoder_no_repeat_ngram_size", 0),
            repetition_penalty=said.number("repetition_penalty", "more than 0", lambda v: 0 < v < 1e6),
            encoder_repetition_penalty=said.number("encoder_repetition_penalty", "more than 0", lambda v: 0 < v < 1e6),
            bad_words=tuple(word for word in said.bad_words() if len(word) > 1),
            begin_suppress_tokens=said.tokens("begin_suppress_tokens"),
            forced_bos_token_id=said.value("forced_bos_token_id", None, "a token's id", is_token),
            renormalize_logits=said.value("renormalize_logits", False, "true or false", lambda v: type(v) is bool),
        )


DEFAULT_GENERATION = Generation()


class Said:
    """The options of decoding that a model's files name. A key without a value, null, counts as absent."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        """`config` is the content of config.json. As in transformers, its options of decoding count only where there
        is no generation_config.json.

        Raises UnknownModel for a file that is no JSON, or asks for what Tolk does not do.
        """
        own = read_json(directory / FILE, required=False)
        has_own = os.path.lexists(directory / FILE)
        self.path = directory / (FILE if has_own else "config.json")
        self._said = {key: value for key, value in (own if has_own else config).items() if value is not None}
        for names in _SPECIAL:
            if not self._said.keys() & names:
                self._said |= {name: config[name] for name in names if config.get(name) is not None}
        for key, neutral in _REFUSED.items():
            if key in self._said and self._said[key] not in (*neutral, []):
                raise UnknownModel(
                    f"{self.path}: {key} is {quote(self._said[key])}, which Tolk does not do: it translates by greedy "
                    f"and beam search. Remove {key} if the translations without it will do."
                )
        if unknown := sorted(own.keys() - _HONOURED - _HARMLESS - _REFUSED.keys()):
            _tell(self.path, quote(", ".join(unknown)))

    def value(self, name: str, default: Any, expected: str, fits: Callable[[Any], bool]) -> Any:
        value = self._said.get(name, default)
        if name in self._said and not fits(value):
            raise UnknownModel(f"{self.path}: {name} is {quote(value)}; {expected} was expected.")
        return value

    def count(self, name: str, default: int, smallest: int = 0, largest: int = LARGEST_LENGTH) -> int:
        expected = f"an integer from {smallest} to {largest}"
        found: int = self.value(name, default, expected, lambda v: type(v) is int and smallest <= v <= largest)
        return found

    def number(self, name: str, expected: str, fits: Callable[[float], bool], default: float = 1.0) -> float:
        expected = f"a number, {expected},"
        return float(self.value(name, default, expected, lambda v: type(v) in (int, float) and fits(v)))

    def tokens(self, name: str) -> tuple[int, ...]:
        expected = "a list of token ids"
        return tuple(self.value(name, (), expected, lambda v: isinstance(v, list) and all(map(is_token, v))))

    def bad_words(self) -> tuple[tuple[int, ...], ...]:
        """The bad_words_ids, each a sequence of token ids."""
        expected = "a list of lists of token ids, [[2], [7, 8], …],"
        words = self.value("bad_words_ids", (), expected, _are_words)
        return tuple(map(tuple, words))

    def longest(self) -> int:
        """The max_length, with the start token."""
        new = self.count("max_new_tokens", 0, 1)
        return new + 1 if new else self.count("max_length", 512, 2)

    def end(self) -> int | None:
        """The eos_token_id. transformers also takes a list, of which Tolk takes one with a single id."""
        one = self._said.get("eos_token_id")
        if isinstance(one, list) and len(one) == 1:
            self._said["eos_token_id"] = one[0]
        found: int | None = self.value("eos_token_id", None, "one token's id", is_token)
        return found

    def start(self) -> int | None:
        """The decoder_start_token_id or, as in transformers, the bos_token_id of the same file in its place."""
        found: int | None = self.value("decoder_start_token_id", None, "one token's id", is_token)
        return self.value("bos_token_id", None, "one token's id", is_token) if found is None else found


def is_token(value: object) -> bool:
    """Whether a value can be a token's id, of whatever vocabulary."""
    return type(value) is int and 0 <= value < LARGEST_LENGTH


def _are_words(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(word, list) and word and all(map(is_token, word)) for word in value
    )


@lru_cache(maxsize=4096)
def _tell(path: Path, unknown: str) -> None:
    """Logs keys that Tolk does not know: once, not whenever the model is loaded."""
    logger.warning("%s: these keys are not known to Tolk and are ignored: %s.", path, unknown)
