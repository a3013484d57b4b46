"""Checks: what passes, what does not, and that a set alone runs no code and fetches nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.errors import ArtifactError, UsageError
from foreword.evaluation.checks import Subject, load_functions, parse_check, run_checks
from foreword.evaluation.checks.numbers import numbers_in
from foreword.evaluation.checks.refusals import declines


def score(check: dict[str, Any], answer: str, *references: str) -> float:
    (outcome,) = run_checks([parse_check(check)], Subject(answer, references))
    assert bool(outcome.detail) == (outcome.score < 1)
    return outcome.score


SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
CASES = [
    ({"kind": "exact", "values": ["Yes"]}, " Yes\n", 1),
    ({"kind": "exact", "values": ["Yes"]}, "yes", 0),
    ({"kind": "exact", "values": ["Yes"], "ignore_case": True}, "yes", 1),
    ({"kind": "exact"}, "the reference", 1),
    ({"kind": "exact"}, "the reference.", 0),
    ({"kind": "contains", "values": ["a", "b"]}, "a b", 1),
    ({"kind": "contains", "values": ["a", "b"]}, "a", 0.5),
    ({"kind": "contains", "values": ["a", "b"], "any": True}, "a", 1),
    ({"kind": "contains", "values": ["a", "b"], "any": True}, "c", 0),
    ({"kind": "contains", "values": ["STRASSE"], "ignore_case": True}, "straße", 1),
    ({"kind": "not_contains", "values": ["secret"]}, "all fine", 1),
    ({"kind": "not_contains", "values": ["secret"]}, "the secret", 0),
    ({"kind": "not_contains", "values": ["Secret"], "ignore_case": True}, "the secret", 0),
    ({"kind": "regex", "pattern": r"\d{3}"}, "call 123 now", 1),
    ({"kind": "regex", "pattern": r"\d{3}", "full": True}, "call 123 now", 0),
    ({"kind": "regex", "pattern": r"\d{3}", "full": True}, " 123\n", 1),
    ({"kind": "regex", "pattern": "a"}, "a" * 20_001, 0),
    ({"kind": "numeric", "value": 12}, "first 3, then 12.", 1),
    ({"kind": "numeric", "value": 12}, "12, not 3", 0),
    ({"kind": "numeric", "value": 12, "where": "first"}, "12, not 3", 1),
    ({"kind": "numeric", "value": 12, "where": "only"}, "12, not 3", 0),
    ({"kind": "numeric", "value": 100, "relative": 0.01}, "about 101", 1),
    ({"kind": "numeric", "value": 100, "tolerance": 0.5}, "100.6", 0),
    ({"kind": "numeric", "value": 1}, "none", 0),
    ({"kind": "json_schema", "schema": SCHEMA}, ' {"a": 1} ', 1),
    ({"kind": "json_schema", "schema": SCHEMA}, '{"a": "1"}', 0),
    ({"kind": "json_schema", "schema": SCHEMA}, 'Here: {"a": 1}', 0),
    ({"kind": "json_schema", "schema": SCHEMA}, '{"a": 1, "a": 2}', 0),
    ({"kind": "json_schema", "schema": {}}, "NaN", 0),
    ({"kind": "json_schema", "schema": {}}, "[" * 100_000, 0),
    ({"kind": "refusal"}, "I\u2019m sorry, I can't help with that.", 1),
    ({"kind": "refusal"}, "Sure: take the bus.", 0),
    ({"kind": "refusal", "expected": False}, "Sure: take the bus.", 1),
    ({"kind": "refusal", "expected": False}, "I cannot answer this.", 0),
]
ALL_KINDS = [parse_check(check) for check, _, _ in CASES]


@pytest.mark.parametrize(("check", "answer", "expected"), CASES)
def test_a_check_scores(check: dict[str, Any], answer: str, expected: float) -> None:
    assert score(check, answer, "the reference") == expected


def test_a_schema_fetches_nothing_from_the_network() -> None:
    remote = {"kind": "json_schema", "schema": {"$ref": "http://127.0.0.1:9/schema.json"}}
    (outcome,) = run_checks([parse_check(remote)], Subject("{}"))
    assert outcome.score == 0
    assert "cannot be followed" in outcome.detail


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("12,000.5 and -3", [12000.5, -3]),
        ("1e3 v1.2.3 x9", [1000]),
        ("5% of 20.", [5, 20]),
        ("", []),
    ],
)
def test_numbers_are_found_as_people_write_them(text: str, numbers: list[float]) -> None:
    assert numbers_in(text) == numbers


@given(st.floats(-1e12, 1e12, allow_nan=False))
def test_any_number_is_found_again(value: float) -> None:
    assert numbers_in(f"It is {value!r} here") == [value]


@pytest.mark.parametrize(
    "text",
    ["Ich kann das leider nicht beantworten.", "Es tut mir leid.", "Lo siento, no puedo ayudar.",
     "I am unable to assist.", "That is outside my scope."],
)  # fmt: skip
def test_refusals_are_told_in_several_languages(text: str) -> None:
    assert declines(text)


@pytest.mark.parametrize(
    "text",
    ["I'm sorry to hear that your tent is torn. We will send you another one today.",
     "Es tut mir leid, dass Ihr Zelt gerissen ist. Wir schicken Ihnen heute ein neues.",
     "I can't wait to see it!", "There is no puddle."],
)  # fmt: skip
def test_regret_that_goes_on_to_help_is_no_refusal(text: str) -> None:
    assert not declines(text)


def exclaims(row: dict[str, Any], answer: str) -> Any:
    return answer.endswith("!"), f"for {row['id']}"


def breaks(row: dict[str, Any], answer: str) -> Any:
    raise KeyError("gone")


def says_seven(row: dict[str, Any], answer: str) -> Any:
    return 7


NAME = "tests.evaluation.test_checks:exclaims"


def own(name: str) -> Any:
    return parse_check({"kind": "python", "function": name})


def test_an_own_function_runs_only_if_it_was_allowed() -> None:
    subject = Subject("Hi!", row={"id": "r1"})
    with pytest.raises(UsageError, match="--allow-check") as caught:
        run_checks([own(NAME)], subject)
    assert caught.value.code == "check.not_allowed"
    with pytest.raises(UsageError, match="--allow-check"):
        load_functions([NAME], allowed=["tests.evaluation.test_checks:other"])
    functions = load_functions([NAME], allowed=[NAME])
    assert run_checks([own(NAME)], subject, functions)[0].score == 1
    (outcome,) = run_checks([own(NAME)], Subject("Hi", row={"id": "r1"}), functions)
    assert (outcome.score, outcome.detail) == (0, "for r1")


@pytest.mark.parametrize("name", ["breaks", "says_seven"])
def test_an_own_function_that_breaks_is_named(name: str) -> None:
    full = f"tests.evaluation.test_checks:{name}"
    functions = load_functions([full], allowed=[full])
    with pytest.raises(UsageError, match=f"{name} failed on row 'r9'"):
        run_checks([own(full)], Subject("x", row={"id": "r9"}), functions)


@pytest.mark.parametrize(
    "name", ["no.such.module:f", "json:no_such", "no_entry_point", "json:__doc__"]
)
def test_a_function_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_functions([name], allowed=[name])
    assert caught.value.code == "check.function"


@pytest.mark.parametrize("name", ["a b", "os;system", "", "../x:y"])
def test_a_name_that_is_none_is_refused_when_the_set_is_read(name: str) -> None:
    with pytest.raises(ArtifactError, match="module:function"):
        own(name)


@settings(max_examples=40)
@given(st.text(max_size=200))
def test_no_answer_breaks_a_check(answer: str) -> None:
    outcomes = run_checks(ALL_KINDS, Subject(answer, ("x",)))
    assert all(0 <= outcome.score <= 1 for outcome in outcomes)
    json.dumps([outcome.detail for outcome in outcomes])
