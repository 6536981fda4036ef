"""FID-4: each hold exactly once, in its spelling, whatever the model says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.fidelity.masking import NAMES, carry, in_parts, mask, masks, placed, unmask
from text.holds import find

SYMBOLS = tuple(f"⟦h{i}⟧" for i in range(16))
PIECES = st.sampled_from(
    ["%s", "{name}", "<b>", "</b>", "https://x.org/a_(b)", "mot ", "un chat", ". ", " ", "Tom", "42", "\U000f0000"]
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_masked_and_unmasked_a_text_is_what_it_was(text: str) -> None:
    masked, holds = mask(text, find(text))
    assert unmask(masked, holds) == text
    assert in_parts(masked, holds, lambda part: part) == masked
    assert len(masks(masked, holds)) == len(find(text))


@given(
    st.lists(PIECES, min_size=1, max_size=8).map("".join),
    st.lists(st.sampled_from([*SYMBOLS[:4], *NAMES[:3], "a", " "])),
)
def test_what_is_placed_has_each_hold_once(text: str, said: list[str]) -> None:
    masked, holds = mask(text, find(text))
    for carriers in (SYMBOLS, NAMES):
        if (carried := carry(masked, holds, carriers)) is None:
            continue
        if carriers is SYMBOLS:  # two names without a space are no whole words
            assert placed(carried.line, masked, carried.carriers, holds) == masked
        answer = placed("".join(said), masked, carried.carriers, holds)
        assert answer is None or sorted(masks(answer, holds)) == sorted(masks(masked, holds))


def test_a_carrier_in_the_sentence_is_not_used_and_a_name_is_a_whole_word() -> None:
    masked, holds = mask("Tom dit %s", find("Tom dit %s"))
    carried = carry(masked, holds, NAMES)
    assert carried is not None
    assert carried.line == "Tom dit John"
    assert placed("Tom says Johnny", masked, carried.carriers, holds) is None
    assert unmask(placed("Tom says John", masked, carried.carriers, holds) or "", holds) == "Tom says %s"


def test_tags_stay_in_order_and_keep_their_words() -> None:
    text = "Un <b>chat</b> noir"
    masked, holds = mask(text, find(text))
    carried = carry(masked, holds, SYMBOLS)
    assert carried is not None
    opening, closing = carried.carriers
    assert placed(f"A black {opening}cat{closing}", masked, carried.carriers, holds)
    assert placed(f"A {closing}black{opening} cat", masked, carried.carriers, holds) is None
    assert placed(f"A black cat {opening}{closing}", masked, carried.carriers, holds) is None


def test_too_many_holds_are_not_carried() -> None:
    masked, holds = mask("%s " * 17, find("%s " * 17))
    assert carry(masked, holds, SYMBOLS) is None
