"""The example data are what the generator makes, and held-out rows are held out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
import make_data  # noqa: E402
import scoring  # noqa: E402


def test_the_committed_files_are_what_the_generator_makes() -> None:
    for name, rows in make_data.datasets().items():
        lines = (EXAMPLES / name).read_text().splitlines()
        assert [json.loads(line) for line in lines] == rows


@pytest.mark.parametrize("tenant", ["trails", "tickets"])
def test_held_out_inputs_never_occur_in_training(tenant: str) -> None:
    files = make_data.datasets()
    train, held_out = files[f"{tenant}/train.jsonl"], files[f"{tenant}/heldout.jsonl"]
    assert (len(train), len(held_out)) == (300, 60)
    assert not {r["input"] for r in train} & {r["input"] for r in held_out}


def test_held_out_trails_have_unseen_names() -> None:
    files = make_data.datasets()
    names = [
        {row["input"].split("]")[0] for row in files[f"trails/{part}.jsonl"]}
        for part in ("train", "heldout")
    ]
    assert not names[0] & names[1]


def test_scores_of_hand_made_answers() -> None:
    good = '{"intent": "refund", "product": "tent", "urgency": "low", "order": null}'
    near = '{"intent": "refund", "product": "lamp", "urgency": "low", "order": null}'
    assert scoring.valid_json([good, "no", '{"intent": 1}', "[1]"]) == 25
    assert scoring.field_accuracy([good, near, "no"], [good] * 3) == pytest.approx(100 * 7 / 12)
    assert scoring.bleu(["A cat sat on the mat."], ["a cat sat on the mat."]) == pytest.approx(100)
    inputs = ["name[Heron Loop], length[7 km], dogs[allowed]"]
    assert scoring.attributes_mentioned(inputs, ["heron loop is long"]) == 50
