"""How the demo scores its two tenants."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import sacrebleu

KEYS = ("intent", "product", "urgency", "order")
_VALUE = re.compile(r"\[([^\]]*)\]")


def bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 100, case folded."""
    return float(sacrebleu.corpus_bleu(list(answers), [list(references)], lowercase=True).score)


def valid_json(answers: Sequence[str]) -> float:
    """Share of answers, 0 to 100, that are one JSON object with exactly the four keys."""
    return 100 * sum(_fields(a) is not None for a in answers) / len(answers)


def field_accuracy(answers: Sequence[str], targets: Sequence[str]) -> float:
    """Share of fields, 0 to 100, that have the wanted value; an invalid answer has none."""
    right = 0
    for answer, target in zip(answers, targets, strict=True):
        got, wanted = _fields(answer) or {}, json.loads(target)
        right += sum(key in got and got[key] == wanted[key] for key in KEYS)
    return 100 * right / (len(KEYS) * len(answers))


def attributes_mentioned(inputs: Sequence[str], answers: Sequence[str]) -> float:
    """Share of attribute values, 0 to 100, that stand in the answer word for word.

    `dogs[allowed]` is left out: no natural sentence says it that way.
    """
    hit = total = 0
    for given, answer in zip(inputs, answers, strict=True):
        values = [v for v in _VALUE.findall(given) if v not in ("allowed", "not allowed")]
        hit += sum(value.lower() in answer.lower() for value in values)
        total += len(values)
    return 100 * hit / total


def _fields(answer: str) -> dict[str, Any] | None:
    try:
        value = json.loads(answer)
    except ValueError:
        return None
    return value if isinstance(value, dict) and set(value) == set(KEYS) else None
