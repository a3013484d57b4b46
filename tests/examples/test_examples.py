"""The example data are what the generator makes, and held-out rows are held out."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
import make_data  # noqa: E402
import scoring  # noqa: E402

FILES = make_data.datasets()
GOOD = '{"intent": "refund", "product": "tent", "urgency": "low", "order": null}'


def _sides(tenant: str) -> tuple[list[make_data.Row], list[make_data.Row]]:
    return FILES[f"{tenant}/train.jsonl"], FILES[f"{tenant}/heldout.jsonl"]


def _found(pattern: str, rows: list[make_data.Row]) -> set[str]:
    return {hit for row in rows for hit in re.findall(pattern, row["input"])}


def test_the_generator_is_deterministic_and_made_the_committed_files() -> None:
    assert make_data.datasets() == FILES
    for name, rows in FILES.items():
        assert (EXAMPLES / name).read_bytes() == make_data.encoded(rows)


@pytest.mark.parametrize("tenant", ["trails", "tickets"])
def test_held_out_inputs_never_occur_in_training(tenant: str) -> None:
    train, held_out = _sides(tenant)
    assert (len(train), len(held_out)) == (300, 60)
    inputs = {row["input"].lower() for row in train + held_out}
    assert len(inputs) == 360


def test_held_out_trails_have_unseen_names() -> None:
    train, held_out = _sides("trails")
    seen, unseen = _found(r"name\[(.*?)\]", train), _found(r"name\[(.*?)\]", held_out)
    assert (len(seen), len(unseen)) == (300, 60)
    assert not seen & unseen
    for row in held_out:
        assert not any(name in row["target"] for name in seen)


def test_trails_have_three_to_six_attributes_and_say_them_all_in_one_sentence() -> None:
    for row in (row for side in _sides("trails") for row in side):
        assert 3 <= row["input"].count("[") <= 6
        assert scoring.attributes_mentioned([row["input"]], [row["target"]]) == 100
        assert ("dogs[" in row["input"]) == (
            " dog" in row["target"].lower().replace("dogs", " dog")
        )
        assert re.fullmatch(r"[A-Z][^.]*\.", row["target"])
        assert "  " not in row["target"]


def test_held_out_tickets_have_other_words_and_orders() -> None:
    train, held_out = _sides("tickets")
    pattern = r"[A-Z]-\d{4}"
    assert not _found(pattern, train) & _found(pattern, held_out)
    seen, unseen = make_data.SEEN, make_data.UNSEEN
    for ours, theirs in ((seen.said, unseen.said), (seen.urgency, unseen.urgency)):
        assert not {p for ps in ours.values() for p in ps} & {
            p for ps in theirs.values() for p in ps
        }
    broken = [{p for ps in side.broken.values() for p in ps} for side in (seen, unseen)]
    assert not broken[0] & broken[1]
    assert not set(seen.order) & set(unseen.order)
    assert not set(seen.openers) & set(unseen.openers)


def test_ticket_targets_fit_the_schema_and_can_be_read_off_the_message() -> None:
    for row in (row for side in _sides("tickets") for row in side):
        answer = json.loads(row["target"])
        assert scoring.exact_schema([row["target"]]) == 100
        assert tuple(answer) == scoring.KEYS
        assert "\n" not in row["target"]
        assert re.findall(r"[A-Z]-\d{4}", row["input"]) == [answer["order"]] * bool(answer["order"])
        named = [p for p in make_data.PRODUCTS if p in row["input"].lower()]
        assert named == [answer["product"]] * bool(answer["product"])


def test_bleu_folds_case() -> None:
    same = scoring.bleu(["A cat sat on the mat."], ["a cat sat on the mat."])
    assert same == pytest.approx(100)
    assert scoring.bleu(["no"], ["a cat sat on the mat."]) < 1


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("HERON LOOP is 7 km long", 100),
        ("heron loop is long", 50),
        ("Heron Loop is 17 km long", 50),  # not 7 km
        ("allowed", 0),
    ],
)
def test_attributes_mentioned(answer: str, share: float) -> None:
    given = "name[Heron Loop], length[7 km], dogs[allowed]"
    assert scoring.attributes_mentioned([given], [answer]) == share


def test_valid_json_is_one_object() -> None:
    assert scoring.valid_json([GOOD, "no", '{"intent": 1}', "[1]"]) == 50
    assert scoring.valid_json([f"{GOOD} Done.", "7", "", "[" * 100_000]) == 0
    assert scoring.valid_json([]) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("refund", "complaint"),
        ('"tent"', '"sofa"'),
        ('"low"', "null"),
        ('"low"', '["low"]'),
        ("null", '"A-12"'),
        ("null", "1234"),
        ("null}", 'null, "note": 1}'),
        (', "order": null', ""),
    ],
)
def test_exact_schema_refuses(old: str, new: str) -> None:
    bad = GOOD.replace(old, new)
    assert scoring.valid_json([bad]) == 100
    assert scoring.exact_schema([GOOD, bad]) == 50


def test_field_accuracy() -> None:
    near = GOOD.replace('"tent"', '"lamp"')
    assert scoring.field_accuracy([GOOD, near, "no"], [GOOD] * 3) == pytest.approx(100 * 7 / 12)
    assert scoring.field_accuracy(['{"intent": "refund"}'], [GOOD]) == 25  # no key is not null
