"""Read a JSON object field by field; what is missing, left over or of another type is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from foreword.errors import ArtifactError


def refuse(path: str, code: str, reason: str) -> NoReturn:
    """Raise the `ArtifactError` for one field."""
    raise ArtifactError(f"{path}: {reason}", code=code)


class Fields:
    """One JSON object being read; `done` refuses fields that nobody asked for."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            refuse(path, "manifest.type", f"expected an object, got {_kind(value)}")
        self._left = dict(value)
        self._path = path

    def _take(self, name: str) -> Any:
        if name not in self._left:
            refuse(f"{self._path}.{name}", "manifest.missing_field", "the field is missing")
        return self._left.pop(name)

    def has(self, name: str) -> bool:
        return name in self._left

    def is_null(self, name: str) -> bool:
        """True, and the field is read, if it is null."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return True
        return False

    def text(self, name: str) -> str:
        value = self._take(name)
        if not isinstance(value, str):
            self._wrong(name, "text", value)
        return value

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        value = self.text(name)
        if value not in allowed:
            refuse(
                f"{self._path}.{name}", "manifest.value",
                f"expected one of {', '.join(allowed)}, got {value[:80]!r}",
            )  # fmt: skip
        return value

    def integer(self, name: str, least: int, most: int) -> int:
        value = self._take(name)
        if not isinstance(value, int) or isinstance(value, bool):
            self._wrong(name, "an integer", value)
        if not least <= value <= most:
            refuse(
                f"{self._path}.{name}", "manifest.range",
                f"expected {least} to {most}, got {value}",
            )  # fmt: skip
        return value

    def boolean(self, name: str) -> bool:
        value = self._take(name)
        if not isinstance(value, bool):
            self._wrong(name, "true or false", value)
        return value

    def number(self, name: str, least: float, most: float) -> float:
        value = self._take(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            self._wrong(name, "a number", value)
        if not least <= value <= most:
            refuse(
                f"{self._path}.{name}", "manifest.range",
                f"expected {least} to {most}, got {value}",
            )  # fmt: skip
        return float(value)

    def flag(self, name: str) -> bool:
        value = self._take(name)
        if not isinstance(value, bool):
            self._wrong(name, "a truth value", value)
        return value

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        values = self._list(name, most)
        if not all(isinstance(v, str) for v in values):
            self._wrong(name, "a list of texts", values)
        return tuple(values)

    def integers(self, name: str, most: int) -> tuple[int, ...]:
        values = self._list(name, most)
        if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values):
            self._wrong(name, "a list of non-negative integers", values)
        return tuple(values)

    def numbers(self, name: str, most: int) -> tuple[float, ...]:
        values = self._list(name, most)
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            self._wrong(name, "a list of numbers", values)
        return tuple(values)

    def object(self, name: str) -> Fields:
        return Fields(self._take(name), f"{self._path}.{name}")

    def objects(self, name: str, most: int) -> list[Fields]:
        values = self._list(name, most)
        return [Fields(v, f"{self._path}.{name}[{i}]") for i, v in enumerate(values)]

    def rest(self) -> dict[str, Any]:
        """Everything not read yet, as it is."""
        rest, self._left = self._left, {}
        return rest

    def done(self) -> None:
        """Refuse what is left: a field we do not know may change what the others mean."""
        if self._left:
            name = min(self._left)
            # repr: the name comes from the file and must not steer a terminal
            refuse(self._path, "manifest.unknown_field", f"the field {name[:80]!r} is not known")

    def _list(self, name: str, most: int) -> list[Any]:
        values = self._take(name)
        if not isinstance(values, list):
            self._wrong(name, "a list", values)
        if len(values) > most:
            refuse(
                f"{self._path}.{name}", "manifest.range",
                f"expected at most {most} entries, got {len(values)}",
            )  # fmt: skip
        return values

    def _wrong(self, name: str, expected: str, value: Any) -> NoReturn:
        refuse(f"{self._path}.{name}", "manifest.type", f"expected {expected}, got {_kind(value)}")


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "a truth value",
        type(None): "null",
    }
    return names.get(type(value), "a number")
