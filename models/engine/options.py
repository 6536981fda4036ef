"""How a sentence is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import BadInput

LARGEST_BEAM = 64  # twice as many candidates must fit into any vocabulary
LARGEST_PENALTY = 10.0  # of lengths; with more, ranks would leave the range of float32


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """How a sentence is decoded.

    `beam`: hypotheses kept, 1 is greedy. `nbest`: how many are returned, at most `beam`. `length_penalty`: hypotheses
    are ranked by the sum of their log-probabilities over their length to this power. `max_length`: most target tokens,
    the end included; None is the model's own limit. `no_repeat_ngram`: no run of so many tokens comes twice; 0 is off.
    """

    beam: int = 1
    nbest: int = 1
    length_penalty: float = 1.0
    max_length: int | None = None
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        """Raises BadInput for options out of range."""
        if not 1 <= self.nbest <= self.beam <= LARGEST_BEAM:
            raise BadInput(f"options: 1 <= nbest ({self.nbest}) <= beam ({self.beam}) <= {LARGEST_BEAM} does not hold.")
        if not abs(self.length_penalty) <= LARGEST_PENALTY:  # nor nan
            raise BadInput(f"options: length_penalty is at most {LARGEST_PENALTY}, not {self.length_penalty}.")
        if self.max_length is not None and self.max_length < 1:
            raise BadInput(f"options: max_length is at least 1, not {self.max_length}.")
        if self.no_repeat_ngram < 0:
            raise BadInput(f"options: no_repeat_ngram is at least 0, not {self.no_repeat_ngram}.")
