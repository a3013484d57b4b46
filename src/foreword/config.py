"""Settings: a file, then flags, become one frozen value; an unknown key names its nearest neighbour."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from foreword.errors import ConfigError

Settings = TypeVar("Settings", bound=BaseModel)


def foreword_home() -> Path:
    """Where bases, fingerprints and keys are kept: `FOREWORD_HOME`, or `~/.cache/foreword`."""
    named = os.environ.get("FOREWORD_HOME")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "foreword"


def load_settings(
    kind: type[Settings], file: Path | None = None, overrides: Sequence[str] = ()
) -> Settings:
    """Read a YAML file, apply `a.b=value` overrides in order, and validate.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a value that does not fit, or a
            file that is not YAML. The message says where it came from.
    """
    values = _read(file) if file else {}
    origins = {path: str(file) for path in _paths(values)}
    for override in overrides:
        path, value = _override(override)
        _put(values, path, value)
        origins[".".join(path)] = f"--set {override}"
    for path_text in _paths(values):
        _require_known(kind, path_text, origins.get(path_text, "the settings"))
    try:
        return kind.model_validate(values)
    except ValidationError as e:
        _refuse_unknown(kind, e, origins)
        raise ConfigError(_explain(e, origins), code="config.value") from e


def _read(file: Path) -> dict[str, Any]:
    try:
        values = _UniqueKeys(file.read_text(encoding="utf-8")).get_single_data()
    except OSError as e:
        raise ConfigError(f"{file} cannot be read ({e.strerror})", code="config.file") from e
    except (yaml.YAMLError, ValueError) as e:  # a date such as 2026-13-01 is a ValueError
        reason = " ".join(str(e).split())
        raise ConfigError(f"{file} is not valid YAML: {reason}", code="config.yaml") from e
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{file} should hold settings as `key: value`, got a {type(values).__name__}",
            code="config.yaml",
        )
    return values


class _UniqueKeys(yaml.SafeLoader):
    """The safe loader, refusing a key that is given twice (plain YAML keeps the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is a list or a mapping", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _override(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"--set takes key=value, such as train.steps=100, got {text!r}", code="config.override"
        )
    try:
        return key.strip().split("."), yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as e:
        raise ConfigError(f"--set {text}: the value is not readable", code="config.override") from e


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{'.'.join(path)} cannot be set: {key} already has the value {inner!r}",
                code="config.override",
            )
        values = inner
    values[path[-1]] = value


def _paths(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _paths(value, f"{path}.")
        else:
            yield path


def known_keys(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key a settings class accepts."""
    keys = []
    for name, field in kind.model_fields.items():
        inner = _nested(field.annotation)
        keys += known_keys(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return keys


def _nested(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _require_known(kind: type[BaseModel], path: str, origin: str) -> None:
    known = known_keys(kind)
    if path in known or any(key.startswith(f"{path}.") for key in known):
        return
    leaf = path.rsplit(".", 1)[-1]
    by_leaf = [key for key in known if key.rsplit(".", 1)[-1] == leaf]
    near = by_leaf or get_close_matches(path, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    raise ConfigError(f"unknown setting {path!r} ({origin}); {hint}", code="config.unknown_key")


def _refuse_unknown(
    kind: type[BaseModel], error: ValidationError, origins: Mapping[str, str]
) -> None:
    """An unknown key inside a list of settings, which only the model itself has seen."""
    for each in error.errors():
        if each["type"] == "extra_forbidden":
            names = [str(part) for part in each["loc"] if not isinstance(part, int)]
            _require_known(kind, ".".join(names), origins.get(names[0], "the settings"))


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    origin = origins.get(path)
    where = f" ({origin})" if origin else ""
    return f"{path}{where}: {first['msg'].lower()}, got {first['input']!r}"
