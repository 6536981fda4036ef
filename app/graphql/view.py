"""GraphQL over HTTP: graphql-server's view, with the service's own errors, limits and copy of GraphiQL."""

from __future__ import annotations

import json
from functools import cached_property, lru_cache, partial
from typing import Any, Never

from flask import Request, Response, abort, g, make_response, render_template, request
from flask.typing import ResponseReturnValue
from graphql import (
    ExecutionResult,
    GraphQLError,
    GraphQLSchema,
    NoSchemaIntrospectionCustomRule,
    OperationType,
    parse,
    specified_rules,
    validate,
)
from graphql_server.exceptions import GraphQLValidationError, InvalidOperationTypeError
from graphql_server.flask.views import FlaskHTTPRequestAdapter, GraphQLView
from graphql_server.http import GraphQLHTTPResponse, GraphQLRequestData
from graphql_server.http.exceptions import HTTPException
from graphql_server.http.sync_base_view import SyncHTTPRequestAdapter
from graphql_server.http.types import HTTPMethod
from typing_extensions import override
from werkzeug.exceptions import BadRequest, MethodNotAllowed, RequestEntityTooLarge, RequestTimeout
from werkzeug.exceptions import HTTPException as WerkzeugException

from app.accounts import auth
from app.accounts.keys import KeyRing
from app.accounts.ledger import Ledger
from app.accounts.repeats import Repeats
from app.graphql import subscriptions
from app.graphql.complexity import Complexity
from app.graphql.context import GraphQLContext
from app.graphql.execution import Document, execute
from app.graphql.subscriptions import Subscribed, Subscriptions
from app.jobs.submission import Jobs
from app.monitoring.recent_errors import RecentErrors
from app.settings import Settings
from app.translation.context import Context
from app.translation.translator import Translator
from app.web import errors, request_log
from app.web.hangups import Hangups
from app.web.streams import MIMETYPE
from tasks.contract.errors import Code, TolkError
from tasks.registry.file import RegistryFile
from text.detection import Detector

CACHED_DOCUMENTS = 256
CACHED_CHARACTERS = 8_192  # longer documents hold texts: they are not repeated, and must not stay in memory
MAX_TOKENS = 1_000  # of a document without its texts; GraphiQL sends 180, and 1000 take half a second to validate


class RequestAdapter(FlaskHTTPRequestAdapter):
    """Treats HEAD as GET, and returns the body as bytes, so that a wrong encoding is found when the JSON is parsed."""

    @cached_property
    @override
    def method(self) -> HTTPMethod:
        return "GET" if self.request.method == "HEAD" else super().method

    @property
    @override
    def body(self) -> bytes:
        try:
            data = self.request.get_data()
            self.request.stream.read(1)  # raises 413 if a chunked body is too long, which Werkzeug would only cut off
        except (BadRequest, RequestEntityTooLarge) as error:
            if isinstance(error.__context__, TimeoutError):  # which Werkzeug treats as a lost connection
                raise RequestTimeout("The request did not arrive in time. Send it faster, or in parts.") from error
            raise
        except Exception as error:  # each server raises an error of its own for broken chunks
            raise BadRequest("The body could not be read to its end.") from error
        return data


class GraphQL(GraphQLView[Context, None]):
    """`/graphql`: operations as JSON by POST, queries by GET too, and GraphiQL for browsers."""

    init_every_request = False
    request_adapter_class = RequestAdapter
    content_types: tuple[str, ...] = ("application/json",)
    queries_by_get = True

    def __init__(
        self,
        schema: GraphQLSchema,
        settings: Settings,
        models: RegistryFile,
        translator: Translator,
        hangups: Hangups,
        ledger: Ledger,
        repeats: Repeats,
        keys: KeyRing,
        recent_errors: RecentErrors,
        detector: Detector,
        jobs: Jobs,
        subscriptions: Subscriptions,
    ) -> None:
        super().__init__(schema, allow_queries_via_get=self.queries_by_get)
        self.settings = settings
        self.models = models
        self.translator = translator
        self.hangups = hangups
        self.ledger = ledger
        self.repeats = repeats
        self.keys = keys
        self.recent_errors = recent_errors
        self.detector = detector
        self.jobs = jobs
        self.subscriptions = subscriptions
        self._rules = specified_rules if settings.introspection else (*specified_rules, NoSchemaIntrospectionCustomRule)
        self._parse_cached = lru_cache(CACHED_DOCUMENTS)(self._parse)

    @override
    def dispatch_request(self) -> ResponseReturnValue:
        self.translator.listen()
        try:
            return self._answer()
        except Exception as error:
            self.recent_errors.add(_code(error), request_log.request_id())
            raise

    def _answer(self) -> ResponseReturnValue:
        proxy: Any = request
        served: Request = proxy._get_current_object()  # the proxy looks it up for every attribute
        if served.method == "POST" and served.mimetype not in self.content_types:
            abort(415, description="Send JSON, with the header Content-Type: application/json.")
        if (served.content_encoding or "identity").lower() != "identity":
            abort(415, description="Send the body uncompressed, without the header Content-Encoding.")
        try:
            return self.run(served)
        except HTTPException as error:
            if isinstance(error.__cause__, InvalidOperationTypeError):
                raise MethodNotAllowed(["POST"], "GET is for queries. Send a mutation by POST.") from error
            abort(error.status_code, description=error.reason)

    @override
    def get_context(self, request: Request, response: Response) -> GraphQLContext:
        key = None
        if not self._asks_for_graphiql(request):
            key = auth.authenticate(request, self.keys, local=auth.is_loopback(self.settings.host))
        registry = self.models.current()
        return GraphQLContext(
            self.settings,
            registry,
            self.translator,
            request_log.request_id(),
            request_log.arrival(),
            key,
            auth.caller(request, key),
            self.ledger,
            self.repeats,
            self.recent_errors,
            self.detector,
            jobs=self.jobs,
        )

    def _asks_for_graphiql(self, request: Request) -> bool:
        adapter = self.request_adapter_class(request)
        return adapter.method == "GET" and bool(self.graphql_ide) and self.should_render_graphql_ide(adapter)

    @override
    def parse_http_body(self, request: SyncHTTPRequestAdapter, context: Context) -> GraphQLRequestData:
        if request.method != "POST":
            return super().parse_http_body(request, context)
        # It is JSON, as `_answer` has made sure. graphql-server would parse the content type as e-mail is parsed.
        is_strict = "application/graphql-response+json" in request.headers.get("Accept", "").lower()
        data = self.parse_json(request.body)
        return self.get_graphql_request_data(request, context, data, "http-strict" if is_strict else "http")

    @override
    def decode_json(self, data: str | bytes) -> object:
        try:
            return json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, f"The body is not JSON: {error}.") from error

    @override
    def encode_json(self, data: object) -> str:
        """JSON with unescaped Unicode, which is legible in a terminal. It is escaped only if it has a lone surrogate,
        which UTF-8 cannot encode."""
        text = json.dumps(data, ensure_ascii=False)
        try:
            text.encode()
        except UnicodeEncodeError:
            return json.dumps(data)
        return text

    @override
    def get_graphql_request_data(
        self, request: Any, context: Context, data: object, protocol: Any
    ) -> GraphQLRequestData:
        if not isinstance(data, dict):
            raise HTTPException(400, "A JSON object was expected.")
        return super().get_graphql_request_data(request, context, data, protocol)

    @override
    def execute_operation(
        self,
        request_adapter: object,
        request_data: GraphQLRequestData,
        context: Context,
        root_value: None,
        allowed_operation_types: set[OperationType],
    ) -> ExecutionResult:
        query, name = request_data.query, request_data.operation_name
        if not isinstance(query, str) or not isinstance(name, str | None):
            raise HTTPException(
                400, 'A GraphQL document in "query", and a name or nothing in "operationName", were expected.'
            )
        document = (self._parse_cached if len(query) <= CACHED_CHARACTERS else self._parse)(query)
        operation = document.operation(name)
        if operation is None:
            raise GraphQLValidationError(
                [GraphQLError("operationName: it must be the name of one of the document's operations.")]
            )
        if operation.operation not in allowed_operation_types:
            raise InvalidOperationTypeError(operation.operation, allowed_operation_types)
        run = partial(execute, self.schema, document, operation, request_data.variables, context)
        suggest = self.settings.introspection
        if operation.operation is OperationType.SUBSCRIPTION:
            if not subscriptions.is_asked_for(request):
                raise HTTPException(406, f"Send a subscription with the header Accept: {MIMETYPE}.")
            g.subscribed = subscribed = Subscribed(context.caller, lambda root: run(root=root, suggest=suggest))
            return subscribed.event()
        with self.hangups.watched(request.environ, context.request_id, context.principal):
            return run(suggest=suggest)

    def _parse(self, query: str) -> Document:
        """Parses a document. Raises GraphQLValidationError if it exceeds a limit or is invalid against the schema."""
        tokens = MAX_TOKENS + self.settings.max_texts
        # To find the line of each of a hundred errors in a megabyte would take seconds.
        long = len(query) > CACHED_CHARACTERS
        try:
            document = parse(query, max_lexical_tokens=tokens, max_comments=tokens, no_location=long)
        except GraphQLError as error:
            raise GraphQLValidationError([error]) from error
        problems = validate(self.schema, document, [Complexity]) or validate(
            self.schema, document, self._rules, hide_suggestions=not self.settings.introspection
        )
        if problems:
            raise GraphQLValidationError(problems)
        return Document.of(document, query)

    @override
    def process_result(self, request: Request, result: ExecutionResult, strict: bool = False) -> GraphQLHTTPResponse:
        response = super().process_result(request, result, strict)
        if result.errors:
            response["errors"] = [self._format(error) for error in result.errors]
        return response

    def _format(self, error: GraphQLError) -> dict[str, Any]:
        domain = errors.domain_error(error)
        errors.note(domain)
        self.recent_errors.add(domain.code, request_log.request_id())
        return {**error.formatted, "message": domain.message, "extensions": errors.extensions(domain)}

    @override
    def create_response(self, response_data: GraphQLHTTPResponse, sub_response: Response, is_strict: bool) -> Response:
        response = super().create_response(response_data, sub_response, is_strict)
        if subscriptions.is_asked_for(request):
            return self._stream(response_data, response)
        problems: Any = response_data.get("errors")
        if problems and response_data.get("data") is None:
            first = problems[0]["extensions"]
            errors.set_status(response, first["code"], first.get("retryAfter"))
        return response

    def _stream(self, first: GraphQLHTTPResponse, response: Response) -> Response:
        return self.subscriptions.respond(
            request,
            response,
            self.encode_json(first),
            g.get("subscribed") if first.get("data") else None,
            lambda result: self.encode_json(self.process_result(request, result)),
        )

    @override
    def render_graphql_ide(self, request: Request, request_data: GraphQLRequestData) -> Response:
        if not self.settings.graphiql:
            abort(404, description="GraphiQL is switched off. Send operations by POST.")
        response = make_response(render_template("graphiql.html"))
        # CodeMirror and Radix, which GraphiQL uses, write style elements.
        response.content_security_policy.style_src = "'self' 'unsafe-inline'"
        return response


def _code(error: Exception) -> Code:
    """The code that a caller gets for an error that leaves the view."""
    if isinstance(error, TolkError):
        return error.code
    return Code.BAD_INPUT if isinstance(error, WerkzeugException) else Code.INTERNAL


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not a number")
