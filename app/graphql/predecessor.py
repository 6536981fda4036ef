"""The API of the service that Tolk replaces, for its old clients: a query that translates one sentence from French to
English.

These clients send JSON or a form, with `variables` as an object or as a string of JSON.
"""

from __future__ import annotations

from typing import Any

import flask
import graphene
from graphql import GraphQLResolveInfo
from graphql_server.http import GraphQLRequestData
from graphql_server.http.sync_base_view import SyncHTTPRequestAdapter
from typing_extensions import override

from app.graphql import schema
from app.graphql.view import GraphQL
from app.translation.context import Context
from app.translation.translate import translate

SOURCE, TARGET = "fr", "en"
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")


class TranslatedString(graphene.ObjectType):
    """A sentence in English."""

    translated_string = graphene.String(required=True, description="The translation.")
    via = graphene.List(
        graphene.NonNull(graphene.String),
        required=True,
        description="The languages in between; empty if a model translates directly.",
    )


def resolve_translate(_root: None, info: GraphQLResolveInfo, *, sentence: str) -> TranslatedString:
    answer = translate(info.context, [sentence], source=SOURCE, target=TARGET)
    [result] = answer.results
    if result.error is not None:
        raise result.error.error()
    return TranslatedString(translated_string=result.text, via=answer.via)


class PredecessorQuery(schema.Query):
    """The queries of Tolk's own API, and a translation."""

    class Meta:
        name = "Query"

    translate = graphene.Field(
        TranslatedString,
        required=True,
        sentence=graphene.String(required=True, description="The sentence, in French."),
        resolver=resolve_translate,
        description="Translates a sentence from French into English.",
        deprecation_reason="Send the mutation `translate` to /graphql.",
    )


class PredecessorGraphQL(GraphQL):
    """`/api/graphql` and `/api/graphiql`: queries by POST, and GraphiQL for browsers."""

    content_types = (*GraphQL.content_types, *FORM_TYPES)
    queries_by_get = False  # a page of another site could make its readers' browsers send one

    @override
    def parse_http_body(self, request: SyncHTTPRequestAdapter, context: Context) -> GraphQLRequestData:
        if flask.request.mimetype in FORM_TYPES:
            _ = request.body  # reads the whole body within the limits, before the form is parsed
            return self.get_graphql_request_data(request, context, dict(request.post_data), "http")
        return super().parse_http_body(request, context)

    @override
    def get_graphql_request_data(
        self, request: Any, context: Context, data: object, protocol: Any
    ) -> GraphQLRequestData:
        if isinstance(data, dict):
            # An empty form field counts as left out.
            given = {name: value for name, value in data.items() if value != ""}
            if isinstance(given.get("variables"), str):
                given["variables"] = self.decode_json(given["variables"])
            data = given
        return super().get_graphql_request_data(request, context, data, protocol)


def build_schema() -> graphene.Schema:
    """The schema of the predecessor's API. Its resolvers expect a Context."""
    return graphene.Schema(query=PredecessorQuery)
