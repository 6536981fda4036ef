"""The GraphQL query `detect`."""

from __future__ import annotations

import graphene
from graphql import GraphQLResolveInfo

from app.translation.detection import detect
from text.detection import Candidate, Detection

SHOWN = 5  # the largest number of candidates of a text


class LanguageCandidate(graphene.ObjectType):
    """A language that a text may be in."""

    language = graphene.String(required=True, description="The language, as `languages` spells it.")
    probability = graphene.Float(required=True, description="How likely it is, from 0 to 1.")


class DetectionType(graphene.ObjectType):
    """Which language a text is in."""

    class Meta:
        name = "Detection"

    language = graphene.String(
        description="The language: one that can be translated or, if the text is clearly in none of these, its own "
        "(`und` if it is unknown). Null if the text has no letters."
    )
    confidence = graphene.Float(required=True, description="The probability of the language; 0 if there is none.")
    served = graphene.Boolean(required=True, description="Whether texts in this language can be translated.")
    from_neighbours = graphene.Boolean(
        required=True, description="Whether the text is too short to tell, so that the texts beside it decided."
    )
    candidates = graphene.List(
        graphene.NonNull(LanguageCandidate),
        required=True,
        description=f"Up to {SHOWN} of the languages that can be translated. The first one is the likeliest, or that "
        "of the texts beside it.",
    )


def resolve_detect(_root: None, info: GraphQLResolveInfo, *, texts: list[str]) -> list[DetectionType]:
    return [_detection(each) for each in detect(info.context, texts)]


def _detection(found: Detection) -> DetectionType:
    best = found.best or Candidate("", 0.0)
    return DetectionType(
        language=best.language or None,
        confidence=best.probability,
        served=found.best is not None and found.unserved is None,
        from_neighbours=found.from_neighbours,
        candidates=[LanguageCandidate(**each._asdict()) for each in found.candidates[:SHOWN]],
    )
