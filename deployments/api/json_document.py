"""JSON documents as requests: parsed within limits, and fields read with errors that name the place of the fault."""

from typing import Any, Final, TypeVar

import orjson

from trygon.errors import ErrorCode, InferenceError

T = TypeVar("T")

MAX_DEPTH: Final = 100
"""Deepest nesting of a document, as in Triton."""

MAX_CONTAINERS: Final = 4_000_000
"""Most arrays and objects in a document: an empty array is 2 bytes of JSON and 64 bytes of memory."""

JSON_TYPES: Final = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def parse_object(data: bytes | memoryview) -> dict[str, Any]:
    """Parse a JSON object.

    Raises: REQUEST_JSON_INVALID (for NaN and Infinity too), REQUEST_JSON_TOO_DEEP, REQUEST_MALFORMED for another value,
    REQUEST_BODY_TOO_LARGE for more arrays and objects than MAX_CONTAINERS.
    """
    raw = bytes(data)
    # Brackets within strings count too, so this is never less than what is there.
    containers = raw.count(b"[") + raw.count(b"{")
    if containers > MAX_CONTAINERS:
        raise InferenceError(
            ErrorCode.REQUEST_BODY_TOO_LARGE,
            f"the JSON has more than {MAX_CONTAINERS} arrays and objects: send tensors flat, or as binary data",
            limit=MAX_CONTAINERS,
        )
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        # The parser's own limit of 1,024 levels, far beyond ours.
        if "depth limit" in error.msg:
            raise _too_deep() from None
        raise InferenceError(ErrorCode.REQUEST_JSON_INVALID, f"the body is not valid JSON: {error}") from None
    if type(document) is not dict:
        raise InferenceError(
            ErrorCode.REQUEST_MALFORMED, f"the body must be a JSON object, not {JSON_TYPES[type(document)]}"
        )
    if containers > MAX_DEPTH:
        _check_depth(document)
    return document


def required(document: dict[str, Any], name: str, kind: type[T], where: str) -> T:
    """Return a field that must be there; `where` names the object that holds it.

    Raises: REQUEST_FIELD_MISSING, REQUEST_FIELD_INVALID.
    """
    if name not in document:
        raise InferenceError(ErrorCode.REQUEST_FIELD_MISSING, f"{where} lacks the field '{name}'", field=name)
    return _typed(document[name], name, kind, where)


def optional(document: dict[str, Any], name: str, kind: type[T], where: str) -> T | None:
    """Return a field, or None where it is absent.

    Raises: REQUEST_FIELD_INVALID.
    """
    return _typed(document[name], name, kind, where) if name in document else None


def _typed(value: Any, name: str, kind: type[T], where: str) -> T:
    # isinstance would take true for an integer.
    if type(value) is not kind:
        raise InferenceError(
            ErrorCode.REQUEST_FIELD_INVALID,
            f"the field '{name}' of {where} must be {JSON_TYPES[kind]}, not {JSON_TYPES[type(value)]}",
            field=name,
        )
    return value


def _check_depth(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is list or type(child) is dict
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> InferenceError:
    return InferenceError(
        ErrorCode.REQUEST_JSON_TOO_DEEP, f"the JSON is nested deeper than {MAX_DEPTH} levels", limit=MAX_DEPTH
    )
