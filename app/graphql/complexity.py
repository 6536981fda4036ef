"""The limits of a GraphQL document. They are checked in one pass, before the document is validated and executed."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from graphql import (
    ASTValidationRule,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    NameNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    ValidationContext,
)
from graphql.validation.validate import ValidationAbortedError

from app.translation.limits import MAX_NAME_CHARACTERS

MAX_DEPTH = 16  # of nested fields; GraphiQL's introspection query has 15, the schema itself 4
MAX_FIELDS = 300  # with fragments expanded; GraphiQL's introspection query has 230
MAX_ALIASES = 8  # each adds a copy of a field to the answer, perhaps of all texts
MAX_DIRECTIVES = 16  # of which there are two, @include and @skip


class Size(NamedTuple):
    """The size of a selection set with its fragments expanded."""

    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0


class Complexity(ASTValidationRule):
    """Aborts the validation of a document that exceeds a limit. The error names the limit and says what to do."""

    context: ValidationContext

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self._fragments: dict[str, Size | None] = {}  # by name; None while it is being measured

    def enter_operation_definition(self, operation: OperationDefinitionNode, *_: Any) -> None:
        self._check(operation)
        self._check_root(operation)

    def enter_fragment_definition(self, fragment: FragmentDefinitionNode, *_: Any) -> None:
        self._check(fragment)

    def enter_name(self, name: NameNode, *_: Any) -> None:
        if len(name.value) > MAX_NAME_CHARACTERS:  # because errors quote it, and there may be many
            self._refuse(f"A name in a document has at most {MAX_NAME_CHARACTERS} characters, not {len(name.value)}.")

    def _check(self, definition: OperationDefinitionNode | FragmentDefinitionNode) -> None:
        size = self._measure(definition.selection_set)
        directives = len(definition.directives) + sum(
            len(variable.directives) for variable in definition.variable_definitions or ()
        )
        for count, limit, what, advice in (
            (size.depth, MAX_DEPTH, "levels of fields", "Ask for less at a time"),
            (size.fields, MAX_FIELDS, "fields, fragments expanded", "Send several requests"),
            (size.aliases, MAX_ALIASES, "aliases, fragments expanded", "Send several requests"),
            (size.directives + directives, MAX_DIRECTIVES, "directives, fragments expanded", "Leave some out"),
        ):
            if count > limit:
                self._refuse(f"A document may have {limit} {what}; this one has more. {advice}.")

    def _measure(self, selection_set: SelectionSetNode | None) -> Size:
        """The size of a selection set. Each fragment is measured once, so the time is linear in the document's
        length."""
        depth = fields = aliases = directives = 0
        for selection in selection_set.selections if selection_set else ():
            inner = self._measure_selection(selection)
            depth = max(depth, inner.depth)
            fields += inner.fields
            aliases += inner.aliases
            directives += inner.directives + len(selection.directives)
        return Size(depth, fields, aliases, directives)

    def _measure_selection(self, selection: SelectionNode) -> Size:
        match selection:
            case FieldNode():
                size = self._measure(selection.selection_set)
                return Size(
                    size.depth + 1, size.fields + 1, size.aliases + (selection.alias is not None), size.directives
                )
            case InlineFragmentNode():
                return self._measure(selection.selection_set)
            case FragmentSpreadNode():
                return self._measure_fragment(selection.name.value)
        raise TypeError(selection)

    def _measure_fragment(self, name: str) -> Size:
        if name not in self._fragments:
            self._fragments[name] = None
            fragment = self.context.get_fragment(name)
            self._fragments[name] = self._measure(fragment.selection_set) if fragment else Size()
        size = self._fragments[name]
        if size is None:
            self._refuse(f"The fragment {name[:MAX_NAME_CHARACTERS]} spreads itself. Take the spread out.")
        return size

    def _check_root(self, operation: OperationDefinitionNode) -> None:
        """Refuses two mutations, and the same root field twice: a request's id, deadline and limits are for one."""
        keys: dict[str, set[str]] = {}  # of the answer, by root field
        self._collect(operation.selection_set, keys, set())
        keys.pop("__typename", None)
        if operation.operation is OperationType.MUTATION and sum(map(len, keys.values())) > 1:
            self._refuse("A request may hold one mutation. Send all texts in one list, or send several requests.")
        for field, names in keys.items():
            if len(names) > 1:
                self._refuse(f"{field[:MAX_NAME_CHARACTERS]}: a request asks for it only once. Send several requests.")

    def _collect(self, selection_set: SelectionSetNode, keys: dict[str, set[str]], seen: set[str]) -> None:
        for selection in selection_set.selections:
            if isinstance(selection, FieldNode):
                keys.setdefault(selection.name.value, set()).add((selection.alias or selection.name).value)
            elif isinstance(selection, InlineFragmentNode):
                self._collect(selection.selection_set, keys, seen)
            elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in seen:
                seen.add(selection.name.value)
                if fragment := self.context.get_fragment(selection.name.value):
                    self._collect(fragment.selection_set, keys, seen)

    def _refuse(self, message: str) -> NoReturn:
        raise ValidationAbortedError(message)
