"""Greedy and beam search: after each step, it chooses the hypotheses with which each sentence of a batch continues.

Greedy search takes the likeliest token. Beam search keeps the `beam` likeliest hypotheses that have not ended (the
active ones). A sentence is finished when it has `beam` ended hypotheses and the likeliest active one would rank below
all of them if it ended now; with early_stopping, as soon as it has them; with early_stopping "never", when it would
rank below them at any length. Results are those of transformers' `generate` (`_sample` and `_beam_search` of
transformers 5).

It is compiled by Numba, because Python code would hold the GIL and stop the threads of other lanes.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.compiled.jit import entry, inline
from models.network.cache import Cache, Doubles, Ints

GOING_ON, FINISHED, FAILED = 0, 1, 2
_STOPPINGS = {False: 0, True: 1, "never": 2}
NEVER = -1e30  # only the log-probabilities of banned tokens are lower


class Searches:
    """The state of the searches in a cache's rows. All attributes are arrays over rows (r).

    Of each sentence, at its first row: `members` (r, most), its rows; `beams`, their number; `widths`, the number of
    its active hypotheses; `limits`, its most target tokens; `penalties`, its length penalty; `stoppings`, its
    early_stopping (_STOPPINGS). Of each active hypothesis, at its row: `totals`, the sum of its log-probabilities;
    `said` (r, t), the token that this row chose for each
    position after the start. Each row also has room for one ended hypothesis: `ranks` (-inf if there is none), `sums`
    of log-probabilities, `lengths`, `forced` (whether the limit forced the end), and its tokens, `texts` (r, t).
    """

    def __init__(self, rows: int, most: int) -> None:
        self.members: Ints = np.zeros((rows, most), np.int32)
        self.beams: Ints = np.ones(rows, np.int32)
        self.limits: Ints = np.ones(rows, np.int32)
        self.widths: Ints = np.ones(rows, np.int32)
        self.penalties: Doubles = np.ones(rows, np.float64)
        self.stoppings: NDArray[np.int8] = np.zeros(rows, np.int8)
        self.totals: Doubles = np.zeros(rows, np.float64)
        self.ranks: Doubles = np.zeros(rows, np.float64)
        self.sums: Doubles = np.zeros(rows, np.float64)
        self.lengths: Ints = np.zeros(rows, np.int32)
        self.forced: NDArray[np.bool_] = np.zeros(rows, np.bool_)
        self.said: Ints = np.zeros((rows, 0), np.int32)
        self.texts: Ints = np.zeros((rows, 0), np.int32)

    def reserve(self, targets: int) -> None:
        """Makes room for `targets` positions; the content is kept."""
        missing = targets - self.said.shape[1]
        if missing > 0:
            self.said, self.texts = (np.pad(each, ((0, 0), (0, missing))) for each in (self.said, self.texts))

    def begin(
        self, rows: list[int], limit: int, penalty: float, early_stopping: bool | Literal["never"] = False
    ) -> None:
        """Begins the search of a new sentence in these rows; the first row is its active hypothesis."""
        first = rows[0]
        self.members[first, : len(rows)] = rows
        self.beams[first], self.limits[first], self.penalties[first] = len(rows), limit, penalty
        self.stoppings[first], self.widths[first], self.totals[first] = _STOPPINGS[early_stopping], 1, 0.0
        self.ranks[rows], self.lengths[rows] = -np.inf, 0

    def rows(self, firsts: Ints) -> Ints:
        """The rows of the active hypotheses, sentence by sentence."""
        rows = np.empty(int(self.widths[firsts].sum()), np.int32)
        _rows(firsts, self.widths, self.members, rows)
        return rows

    def choose(self, firsts: Ints, tokens: Ints, scores: Doubles, end: int, cache: Cache) -> NDArray[np.int8]:
        """Continues the sentences with the best candidates. `tokens` and `scores` (n, count) are the likeliest next
        tokens of each of `rows(firsts)`, and their log-probabilities. Returns the state of each sentence: GOING_ON,
        FINISHED, or FAILED if a log-probability is nan.
        """
        states = np.empty(len(firsts), np.int8)
        _choose(
            firsts,
            tokens,
            scores,
            end,
            (self.members, self.beams, self.limits, self.penalties, self.stoppings, self.widths, self.totals),
            (self.ranks, self.sums, self.lengths, self.forced, self.texts, self.said),
            (cache.tokens, cache.positions, cache.paths),
            states,
        )
        return states

    def hypothesis(self, row: int, cache: Cache) -> tuple[int, ...]:
        """The tokens so far of an active hypothesis."""
        so_far = np.arange(1, cache.positions[row] + 1)
        return tuple(self.said[cache.paths[row, so_far], so_far].tolist())

    def ended(self, first: int, count: int) -> list[tuple[tuple[int, ...], float, bool]]:
        """The `count` best ended hypotheses of a sentence, the best first: (tokens, score, whether the end was forced).

        Tokens exclude the end token; the score is the mean log-probability per token, including the end token.
        """
        rows = self.members[first, : self.beams[first]]
        found = [row for row in rows[np.argsort(-self.ranks[rows], kind="stable")].tolist() if self.lengths[row]]
        return [
            (
                tuple(self.texts[row, 1 : self.lengths[row]].tolist()),
                float(self.sums[row] / self.lengths[row]),
                bool(self.forced[row]),
            )
            for row in found[:count]
        ]


@partial(entry, exact=True)
def _rows(firsts: Ints, widths: Ints, members: Ints, rows: Ints) -> None:
    n = 0
    for first in firsts:
        for i in range(widths[first]):
            rows[n] = members[first, i]
            n += 1


@partial(entry, exact=True)
def _choose(
    firsts: Ints,
    tokens: Ints,
    scores: Doubles,
    end: int,
    sentences: Any,
    ended: Any,
    cache: Any,
    states: NDArray[np.int8],
) -> None:
    members, beams, limits, penalties, stoppings, widths, totals = sentences
    ranks, said = ended[0], ended[-1]
    last, positions, paths = cache
    count = tokens.shape[1]
    most = members.shape[1]
    best = np.empty(2 * most, np.float64)
    parents, chosen = np.empty(2 * most, np.int64), np.empty(2 * most, np.int64)
    copies = np.empty((most, paths.shape[1]), np.int32)
    n = 0
    for s in range(firsts.size):
        first = firsts[s]
        rows, beam, width = members[first], beams[first], widths[first]
        length = positions[first] + 1  # tokens of a hypothesis, including the one that is chosen now
        kept = 2 * beam if beam > 1 else 1  # even if `beam` of them end, `beam` are left to continue
        if length == limits[first]:  # the limit is one token, which is the end
            _file(rows[:beam], first, 0.0, 1, 1.0, True, ended, paths)
            states[s] = FINISHED
            n += width
            continue

        found = 0
        broken = False
        for i in range(width):
            broken |= math.isnan(scores[n + i, 0])
            for c in range(count):
                total = totals[rows[i]] + scores[n + i, c]
                if scores[n + i, c] < NEVER or (found == kept and total <= best[found - 1]):
                    continue
                at = min(found, kept - 1)
                while at > 0 and best[at - 1] < total:
                    best[at], parents[at], chosen[at] = best[at - 1], parents[at - 1], chosen[at - 1]
                    at -= 1
                best[at], parents[at], chosen[at] = total, i, tokens[n + i, c]
                found = min(found + 1, kept)
        n += width
        if broken or not found:
            states[s] = FAILED
            continue

        going_on = 0
        for c in range(found):
            if chosen[c] == end:
                if c < beam:  # the other candidates only replace ended ones
                    _file(rows[:beam], rows[parents[c]], best[c], length, penalties[first], False, ended, paths)
            elif going_on < beam:
                best[going_on], parents[going_on], chosen[going_on] = best[c], parents[c], chosen[c]
                going_on += 1
        worst = np.inf
        for i in range(beam):
            worst = min(worst, ranks[rows[i]])
        stopping, penalty = stoppings[first], penalties[first]
        longest = limits[first] if stopping == 2 and penalty > 0 else length
        is_full = worst > -np.inf
        if not going_on or (is_full and (stopping == 1 or best[0] / float(longest) ** penalty <= worst)):
            states[s] = FINISHED
            continue

        for i in range(going_on):
            copies[i, :length] = paths[rows[parents[i]], :length]
        for i in range(going_on):
            row = rows[i]
            paths[row, :length] = copies[i, :length]
            paths[row, length], said[row, length] = row, chosen[i]
            last[row], positions[row], totals[row] = chosen[i], length, best[i]
        widths[first] = going_on
        states[s] = GOING_ON
        if length + 1 == limits[first]:  # the end is forced, with probability 1
            for i in range(going_on):
                _file(rows[:beam], rows[i], best[i], length + 1, penalties[first], True, ended, paths)
            states[s] = FINISHED


@inline
def _file(
    rows: Ints, row: int, total: float, length: int, penalty: float, is_forced: bool, ended: Any, paths: Ints
) -> None:
    """Records the hypothesis of `row`, which has ended with `length` tokens, if it ranks among the best of `rows`."""
    ranks, sums, lengths, forced, texts, said = ended
    rank = total / float(length) ** penalty
    place = rows[0]
    for other in rows:
        if ranks[other] < ranks[place]:
            place = other
    if rank > ranks[place]:
        ranks[place], sums[place], lengths[place], forced[place] = rank, total, length, is_forced
        for t in range(1, length):
            texts[place, t] = said[paths[row, t], t]
