"""How the demo scores its two tenants. Every score is a share from 0 to 100."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import sacrebleu
from make_data import INTENTS, PRODUCTS, URGENCIES

KEYS = ("intent", "product", "urgency", "order")
_ATTRIBUTE = re.compile(r"(\w+)\[([^\]]*)\]")
_ORDER = re.compile(r"[A-Z]-[0-9]{4}")


def bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU, case folded."""
    return float(sacrebleu.corpus_bleu(list(answers), [list(references)], lowercase=True).score)


def attributes_mentioned(inputs: Sequence[str], answers: Sequence[str]) -> float:
    """Share of attribute values that stand in the answer as whole words.

    `dogs[...]` is left out: "dogs are welcome" is a good way to say `allowed`, and "allowed" alone
    does not tell it from "not allowed".
    """
    hits = []
    for given, answer in zip(inputs, answers, strict=True):
        values = [value for key, value in _ATTRIBUTE.findall(given) if key != "dogs"]
        hits += [_stands_in(value, answer) for value in values]
    return _share(hits)


def valid_json(answers: Sequence[str]) -> float:
    """Share of answers that are one JSON object and nothing else."""
    return _share([_object(answer) is not None for answer in answers])


def exact_schema(answers: Sequence[str]) -> float:
    """Share of answers that are an object of exactly the four keys, each with an allowed value."""
    return _share([_fits(_object(answer)) for answer in answers])


def field_accuracy(answers: Sequence[str], targets: Sequence[str]) -> float:
    """Share of fields that have the wanted value; an answer that is no object has none."""
    hits = []
    for answer, target in zip(answers, targets, strict=True):
        got, wanted = _object(answer) or {}, json.loads(target)
        hits += [key in got and got[key] == wanted[key] for key in KEYS]
    return _share(hits)


def _share(hits: Sequence[bool]) -> float:
    return 100 * sum(hits) / len(hits) if hits else 0.0


def _stands_in(value: str, answer: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", answer, re.IGNORECASE) is not None


def _object(answer: str) -> dict[str, Any] | None:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _fits(value: dict[str, Any] | None) -> bool:
    if value is None or set(value) != set(KEYS):
        return False
    order = value["order"]
    return (
        value["intent"] in INTENTS
        and value["product"] in (*PRODUCTS, None)
        and value["urgency"] in URGENCIES
        and (order is None or (isinstance(order, str) and _ORDER.fullmatch(order) is not None))
    )
