"""The check `json_schema`, and how an answer is read as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from foreword.artifact.fields import Fields, refuse
from foreword.errors import UsageError
from foreword.evaluation.checks.check import PASSED, Checker, Outcome, Subject, shown


def json_schema(options: Fields) -> Checker:
    """The answer is one JSON value that conforms to `schema` (draft 2020-12)."""
    validator = _validator(options.object("schema").rest())

    def check(subject: Subject) -> Outcome:
        try:
            value = read_json(subject.answer)
        except ValueError as e:
            return Outcome(0.0, f"not JSON ({shown(str(e))})")
        return _conforms(validator, value)

    return check


def read_json(answer: str) -> Any:
    """The one JSON value an answer consists of, but for space around it; text around it is wrong.

    Raises:
        ValueError: it is none, has a key twice, or has NaN or Infinity.
    """
    try:
        return json.loads(answer, object_pairs_hook=unique, parse_constant=no_constant)
    except RecursionError as e:
        raise ValueError("nested too deep") from e


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's pairs as a dict; a key that occurs twice is an error."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in values if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} occurs twice")
    return values


def no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _validator(schema: Mapping[str, Any]) -> Any:
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
        from referencing import Registry
    except ImportError as e:
        raise UsageError(
            "checks of the kind json_schema need the package `jsonschema`; install foreword[eval]",
            code="evaluation.extra",
        ) from e
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as e:
        refuse("check.schema", "golden.check", f"not a JSON Schema ({e.message[:120]})")
    # Without a registry of its own the library would fetch `$ref`s from the network.
    return Draft202012Validator(schema, registry=Registry())


def _conforms(validator: Any, value: Any) -> Outcome:
    from referencing.exceptions import Unresolvable

    try:
        wrong = next(iter(validator.iter_errors(value)), None)
    except (Unresolvable, RecursionError) as e:
        return Outcome(0.0, f"the schema cannot be followed ({type(e).__name__})")
    if wrong is None:
        return PASSED
    return Outcome(0.0, f"at {wrong.json_path}: {shown(wrong.message, 120)}")
