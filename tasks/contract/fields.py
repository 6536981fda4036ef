"""Reads the fields of a decoded message. A field that does not fit raises TolkError(BAD_INPUT), which names it."""

from __future__ import annotations

from collections.abc import Mapping
from sys import float_info
from types import UnionType
from typing import Any

from tasks.contract.errors import Code, TolkError

VERSION = 1


def plain(value: Any) -> Any:
    """A message of dataclasses, tuples and values as builtins for JSON. `dataclasses.asdict` takes four times as long,
    because it copies."""
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    if (fields := getattr(value, "__dataclass_fields__", None)) is None:
        return value
    return {name: plain(getattr(value, name)) for name in fields}


def versioned(payload: object, what: str) -> Mapping[str, Any]:
    """The message `payload` as a mapping; `what` names it in errors. Its field `v` has to be this release's VERSION."""
    data = mapping(payload, what)
    if data.get("v") != VERSION:
        raise TolkError(
            Code.BAD_INPUT,
            f"{what}: version {data.get('v')!r} is not {VERSION}, the one this release speaks.",
        )
    return data


def mapping(payload: object, what: str) -> Mapping[str, Any]:
    if not isinstance(payload, Mapping):
        raise TolkError(Code.BAD_INPUT, f"{what}: an object was expected, not {type(payload).__name__}.")
    return payload


def array(data: Mapping[str, Any], name: str) -> list[Any]:
    found: list[Any] = value(data, name, list)
    return found


def strings(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = array(data, name)
    if not all(isinstance(item, str) for item in found):
        raise TolkError(Code.BAD_INPUT, f"{name}: a list of strings was expected.")
    return tuple(found)


def span(data: Mapping[str, Any], name: str) -> tuple[int, int]:
    match array(data, name):
        case [int(start), int(end)] if 0 <= start <= end:
            return start, end
    raise TolkError(Code.BAD_INPUT, f"{name}: a start and an end were expected.")


def value(data: Mapping[str, Any], name: str, kind: type | UnionType) -> Any:
    """The field `name`, which has to be of type `kind`; an absent field counts as null.

    An int is accepted as a float. A bool is never accepted as a number, and neither is infinity or NaN.
    """
    found: Any = data.get(name)
    kinds = kind.__args__ if isinstance(kind, UnionType) else (kind,)
    if float in kinds and type(found) in (int, float):
        if abs(found) <= float_info.max:
            return float(found)
        raise TolkError(Code.BAD_INPUT, f"{name}: a finite number was expected.")
    if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
        wanted = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise TolkError(Code.BAD_INPUT, f"{name}: {wanted} was expected, not {type(found).__name__}.")
    return found
