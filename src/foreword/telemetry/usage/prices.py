"""What tokens cost: a TOML file, exact decimals.

currency = "EUR"
[default]                       # per 1,000 tokens
prompt = 0.10
cached = 0.02                   # prompt tokens whose keys and values were reused
completion = 0.40
[prefixes."acme/support"]       # or base, for the bare model
completion = 0.60               # what is not named costs nothing
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from foreword.artifact.disk import read_bounded
from foreword.errors import ConfigError

_MAX_BYTES = 1 << 20
_PER = 1000


@dataclass(frozen=True)
class Price:
    """Per 1,000 tokens."""

    prompt: Decimal = Decimal(0)
    cached: Decimal = Decimal(0)
    completion: Decimal = Decimal(0)

    def of(self, prompt: int, cached: int, completion: int) -> Decimal:
        """`prompt` counts the cached tokens too; they have a price of their own."""
        full = max(prompt - cached, 0)
        return (full * self.prompt + cached * self.cached + completion * self.completion) / _PER


@dataclass(frozen=True)
class Prices:
    """A price for every prefix; without a file all is free and has no currency."""

    currency: str = ""
    default: Price = field(default_factory=Price)
    prefixes: Mapping[str, Price] = field(default_factory=dict)

    def price(self, prefix: str) -> Price:
        return self.prefixes.get(prefix, self.default)


def read_prices(path: Path) -> Prices:
    """Read a price table.

    Raises:
        ConfigError: it is not TOML, or says something that is no price.
        ArtifactError, StorageError: it cannot be read.
    """
    try:
        table = tomllib.loads(read_bounded(path, _MAX_BYTES).decode(), parse_float=Decimal)
    except ValueError as e:
        raise ConfigError(f"{path} is not valid TOML: {str(e)[:200]}", code="config.toml") from e
    _only(table, {"currency", "default", "prefixes"}, f"{path}")
    currency = table.get("currency", "")
    if not (isinstance(currency, str) and 1 <= len(currency) <= 16 and currency.isprintable()):
        _refuse(path, "currency", "a short name such as EUR", currency)
    prefixes = table.get("prefixes", {})
    if not isinstance(prefixes, dict):
        _refuse(path, "prefixes", "a table", prefixes)
    return Prices(
        currency,
        _price(table.get("default", {}), path, "default"),
        {name: _price(each, path, f"prefixes.{name}") for name, each in prefixes.items()},
    )


def _price(table: Any, path: Path, where: str) -> Price:
    if not isinstance(table, dict):
        _refuse(path, where, "a table of prices", table)
    _only(table, {each.name for each in fields(Price)}, f"{path}, {where}")
    return Price(**{k: _amount(v, path, f"{where}.{k}") for k, v in table.items()})


def _amount(value: Any, path: Path, where: str) -> Decimal:
    amount = Decimal(value) if type(value) in (int, Decimal) else Decimal("NaN")
    if not (amount.is_finite() and amount >= 0):
        _refuse(path, where, "a price of 0 or more", value)
    return amount


def _only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(table) - known):
        raise ConfigError(
            f"{where}: unknown {unknown[0][:80]!r}; known are {', '.join(sorted(known))}",
            code="config.unknown_key",
        )


def _refuse(path: Path, where: str, expected: str, value: object) -> NoReturn:
    raise ConfigError(
        f"{path}, {where[:80]!r}: expected {expected}, got {str(value)[:80]!r}", code="config.value"
    )
