"""Schemathesis over an application's own OpenAPI document: every phase, every operation, every check.

What it may not assume is written in `config`; what is asked beyond its own checks is in `Watch`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema
from schemathesis.schemas import BaseSchema

PHASES = ("examples", "coverage", "fuzzing", "stateful")


def config(key: str, examples: int, seed: int = 19) -> SchemathesisConfig:
    """`examples` of each operation in each mode, valid and not, with NUL and everything else in texts."""
    return SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "generation": {
                "mode": "all",
                "max-examples": examples,
                "no-shrink": True,
                "database": "none",
                "allow-x00": True,
                "codec": "utf-8",
            },
            "phases": {phase: {"enabled": True} for phase in PHASES},
            "auth": {"openapi": {"key": {"bearer": key}, "HTTPBearer": {"bearer": key}}},
            "request-timeout": 20,
            "continue-on-failure": True,
        }
    )
