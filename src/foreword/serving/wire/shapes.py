"""What the models of request bodies share. Strict: nothing is converted, nothing is ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError

from foreword.errors import BadRequest

Read = TypeVar("Read", bound="Shape")
_UNSUPPORTED, _WRONG = "unsupported", "wrong"
"""Types of errors whose message is a whole sentence of ours."""
_SHOWN = 40
"""Characters of a client's word in a message about it."""


class Shape(BaseModel):
    """A JSON object with these fields and no others."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def unsupported(reason: str, field: str = "") -> NoReturn:
    """Refuse, in a validator, what is understood and cannot be honoured.

    `field`: which one, in a validator of a whole object.
    """
    raise PydanticCustomError(_UNSUPPORTED, "{reason}", {"reason": reason, "field": field})


def wrong(reason: str, field: str = "") -> NoReturn:
    """Refuse, in a validator, a value that means nothing here; `field` as for `unsupported`."""
    raise PydanticCustomError(_WRONG, "{reason}", {"reason": reason, "field": field})


def by_kind(field: str, tags: Mapping[str, str]) -> Discriminator:
    """Which alternative an object is, by the text in `field`; any other text is refused."""

    def tag(value: Any) -> str | None:
        kind = value.get(field) if isinstance(value, dict) else getattr(value, field, None)
        return tags.get(kind) if isinstance(kind, str) else None

    message = f"expected one of {', '.join(tags)}; use one of them"
    # The field is in the type, for a context would make the annotation one that cannot be hashed.
    return Discriminator(tag, f"{_WRONG}.{field}", message)


def unless_empty(instead: str) -> AfterValidator:
    """For a field that is accepted only while it asks for nothing; `instead`: what to do."""

    def check(value: Any) -> Any:
        if value is not None and value is not False and value not in ([], {}, ""):
            unsupported(f"this server does not have it; {instead}")
        return value

    return _Empty(check)


class _Empty(AfterValidator):
    """Says in the description of the API what it takes."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"allOf": [handler(schema), {"enum": [None, False, "", [], {}]}]}


Ignored = Annotated[Any, "accepted from clients that send it to everybody; it changes no answer"]


def read_shape(shape: type[Read], value: Mapping[str, Any]) -> Read:
    """The body as that model.

    Raises:
        BadRequest: one field, which `param` names, is wrong (`request.field`), not known
            (`request.unknown_field`) or not supported (`request.unsupported`).
    """
    try:
        return shape.model_validate(value)
    except ValidationError as e:
        errors = e.errors(include_url=False)
        # What is not supported says more than what follows from it.
        first = next((each for each in errors if each["type"] == _UNSUPPORTED), errors[0])
        raise _refusal(shape, first) from None  # its message would quote the body


def _refusal(shape: type[Shape], error: ErrorDetails) -> BadRequest:
    kind, param = error["type"].partition(".")[0], _path(error)[:200]
    if kind == "extra_forbidden":
        near = get_close_matches(str(error["loc"][-1])[:80], _names(shape), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "leave it out"
        return BadRequest(
            f"the field {param[:80]!r} is not known; {hint}",
            code="request.unknown_field",
            param=param,
        )
    if kind in (_UNSUPPORTED, _WRONG):
        code = "request.unsupported" if kind == _UNSUPPORTED else "request.field"
        return BadRequest(f"{param}: {error['msg']}", code=code, param=param)
    if kind == "missing":
        return BadRequest(
            f"{param}: the field is missing; add it", code="request.field", param=param
        )
    said = error["msg"].replace("Input should be", "expected", 1).partition(" or instance of")[0]
    shown = _shown(error["input"], kind)
    return BadRequest(f"{param}: {said}, got {shown}", code="request.field", param=param)


def _shown(value: Any, kind: str) -> str:
    """What came; of texts that may be part of a prompt only how long they are."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        named = kind in ("literal_error", "string_pattern_mismatch")
        return repr(value[:_SHOWN]) if named else f"a text of {len(value)} characters"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "an object"


def _path(error: ErrorDetails) -> str:
    """`messages[0].content`; the names of alternatives stand in brackets and are left out."""
    path, field = "", error.get("ctx", {}).get("field") or error["type"].partition(".")[2]
    for part in (*error["loc"], *([field] if field else [])):
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("("):
            path += f".{part}" if path else part
    return path


@cache
def _names(shape: type[Shape]) -> list[str]:
    """Every name of a field in the body, at any depth."""
    schema = shape.model_json_schema()
    objects = [schema, *schema.get("$defs", {}).values()]
    return sorted({name for each in objects for name in each.get("properties", {})})
