"""The options of decoding."""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import BadInput
from models.network.generation import LARGEST_BEAM, LARGEST_PENALTY, Generation


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """How a sentence is decoded. None stands for what the model's generation_config.json says.

    `beam`: number of hypotheses that the search keeps; 1 is greedy search. `nbest`: number of hypotheses that are
    returned, at most `beam`. `length_penalty`: hypotheses are ranked by the sum of their log-probabilities divided by
    (their length to the power of length_penalty). `max_length`: the most target tokens, including the end token.
    `no_repeat_ngram`: no n-gram of so many tokens occurs twice; 0 turns this off.
    """

    beam: int = 1
    nbest: int = 1
    length_penalty: float | None = None
    max_length: int | None = None
    no_repeat_ngram: int | None = None

    def __post_init__(self) -> None:
        """Raises BadInput for an option out of range."""
        if not 1 <= self.nbest <= self.beam <= LARGEST_BEAM:
            raise BadInput(f"options: 1 <= nbest ({self.nbest}) <= beam ({self.beam}) <= {LARGEST_BEAM} does not hold.")
        if not abs(self.length_penalty or 0.0) <= LARGEST_PENALTY:  # nan fails this, too
            raise BadInput(f"options: length_penalty is {self.length_penalty}; at most {LARGEST_PENALTY} was expected.")
        if self.max_length is not None and self.max_length < 1:
            raise BadInput(f"options: max_length is {self.max_length}; at least 1 was expected.")
        if self.no_repeat_ngram is not None and self.no_repeat_ngram < 0:
            raise BadInput(f"options: no_repeat_ngram is {self.no_repeat_ngram}; at least 0 was expected.")

    def no_repeat_ngram_of(self, said: Generation) -> int:
        """The no_repeat_ngram with a model whose generation_config.json says `said`."""
        return said.no_repeat_ngram_size if self.no_repeat_ngram is None else self.no_repeat_ngram
