"""The execution of validated documents, which are sent again and again: what depends on a document alone is found out
once. It puts together what graphql-core's `execute_sync` consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionContext,
    ExecutionResult,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    default_field_resolver,
    default_type_resolver,
    get_operation_ast,
)
from graphql.execution.execute import CollectedErrors, assume_not_awaitable
from graphql.execution.values import get_variable_values

MAX_COERCION_ERRORS = 50  # as in graphql-core


@dataclass(frozen=True, slots=True)
class Document:
    """A validated document, with its fragments by name. `selections` are the fields that were collected for each type
    and field; it is None if directives let variables decide about them."""

    node: DocumentNode
    fragments: dict[str, FragmentDefinitionNode]
    selections: dict[Any, Any] | None

    @classmethod
    def of(cls, node: DocumentNode, query: str) -> Document:
        """The document of a query, from its syntax tree."""
        fragments = {each.name.value: each for each in node.definitions if isinstance(each, FragmentDefinitionNode)}
        return cls(node, fragments, None if "@" in query else {})

    def operation(self, name: str | None) -> OperationDefinitionNode | None:
        """The operation with this name, or the only one. None if there is none, or a name is needed."""
        return get_operation_ast(self.node, name)


class Execution(ExecutionContext):
    """One execution of a document's operation."""

    def __init__(
        self,
        schema: GraphQLSchema,
        document: Document,
        operation: OperationDefinitionNode,
        variables: dict[str, Any],
        context: object,
    ) -> None:
        super().__init__(
            schema,
            document.fragments,
            None,
            context,
            operation,
            variables,
            default_field_resolver,
            default_type_resolver,
            default_field_resolver,
            CollectedErrors(),
            None,
            assume_not_awaitable,
        )
        if document.selections is not None:
            self._subfields_cache = document.selections

    def run(self, root: object) -> ExecutionResult:
        """Executes the operation. The result has the errors of the fields, and of everything else too."""
        data: Any
        try:
            data = self.execute_operation(self.operation, root)
        except GraphQLError as error:
            data = None
            self.collected_errors.add(error, None)
        return self.build_response(data, self.collected_errors.errors)


def execute(
    schema: GraphQLSchema,
    document: Document,
    operation: OperationDefinitionNode,
    variables: dict[str, Any] | None,
    context: object,
    *,
    root: object = None,
    suggest: bool = True,
) -> ExecutionResult:
    """Executes an operation of the document; of a subscription, one event. Raises nothing: all errors are in the
    result. `root` is what the resolvers of root fields get. `suggest` says whether errors may name fields and values
    that the caller may have meant."""
    try:
        coerced = get_variable_values(
            schema, operation.variable_definitions or (), variables or {}, MAX_COERCION_ERRORS, not suggest
        )
        if isinstance(coerced, list):
            return ExecutionResult(None, coerced)
        return Execution(schema, document, operation, coerced, context).run(root)
    except Exception as error:  # noqa: BLE001 - it is ours, and graphql-server would call it the caller's
        return ExecutionResult(None, [GraphQLError(str(error), original_error=error)])
