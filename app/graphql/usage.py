"""The GraphQL query `usage`."""

from __future__ import annotations

from datetime import UTC, datetime

import graphene
from graphql import GraphQLResolveInfo

from app.translation.context import Context


class UsageType(graphene.ObjectType):
    """The usage of the API key that the request was sent with."""

    class Meta:
        name = "Usage"

    characters = graphene.Field(
        graphene.BigInt, required=True, description="The number of characters of all texts that were translated today."
    )
    limit = graphene.Field(graphene.BigInt, description="The limit of characters a day; null if there is none.")
    resets_at = graphene.DateTime(required=True, description="When the day ends: at midnight UTC.")


def resolve_usage(_root: None, info: GraphQLResolveInfo) -> UsageType | None:
    context: Context = info.context
    if context.key is None:
        return None
    used = context.ledger.used(context.key)
    return UsageType(
        characters=used.characters, limit=used.limit, resets_at=datetime.fromtimestamp(used.resets_at, UTC)
    )
