"""Drift: what changed is found, what did not raises few false alarms, and an alarm keeps what it saw."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foreword.artifact import Digest
from foreword.errors import ArtifactError, DataError, NotFound, UsageError
from foreword.evaluation.drift import (
    NGRAMS,
    Budget,
    DriftReport,
    Encoder,
    Feedback,
    Observation,
    Reference,
    compare_feedback,
    discoveries,
    freeze_reference,
    hidden_states,
    load_reference,
    look,
    observation,
    read_observations,
    record,
)
from foreword.evaluation.drift.distances import kolmogorov_smirnov, mmd, psi
from foreword.evaluation.drift.permutation import permutation_p
from foreword.evaluation.golden.logs import add_from_logs
from foreword.registry.layout import Layout, init
from foreword.registry.lineage import why
from foreword.registry.registry import Registry
from tests.evaluation.samples import golden
from tests.registry.samples import NAME, POLICY, by, publish
from tests.tiny import tiny_base

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DIGEST = Digest.of(b"a prefix")
BANK = "please reset my card payment account transfer refund pending balance pin".split()  # noqa: SIM905
TELECOM = "router modem wifi signal cable speed outage antenna reboot firmware".split()  # noqa: SIM905


def lines(count: int, seed: int, telecom: float = 0.0, slower: float = 1.0) -> list[dict[str, Any]]:
    """A log: questions to a bank, of which a share is about something else."""
    draw = np.random.default_rng(seed)
    return [
        {
            "id": f"{seed}-{number}",
            "input": " ".join(draw.choice(TELECOM if draw.random() < telecom else BANK, 7)),
            "answer": "I can't help with that." if draw.random() < 0.1 else "Done. " * 5,
            "seconds": float(draw.gamma(3, 0.2) * slower),
        }
        for number in range(count)
    ]


def rows(*args: Any, **more: Any) -> list[Observation]:
    return [observation(each) for each in lines(*args, **more)]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    directory = tmp_path_factory.mktemp("references")
    return freeze_reference(directory, DIGEST, rows(200, 1), NGRAMS, NOW)


def alarms(report: DriftReport) -> set[str]:
    return {finding.measure for finding in report.findings if finding.alarm}


def test_the_reference_is_frozen_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    frozen = freeze_reference(tmp_path, DIGEST, rows(120, 1), NGRAMS, NOW)
    again = load_reference(tmp_path, DIGEST)
    assert (again.data, again.digest) == (frozen.data, Digest.of(frozen.data))
    assert again.window.to_bytes() == frozen.data
    assert set(again.window.columns) == {"input_length", "answer_length", "latency", "refusal"}
    with pytest.raises(UsageError) as refused:
        freeze_reference(tmp_path, DIGEST, rows(120, 2), NGRAMS, NOW)
    assert refused.value.code == "drift.frozen"
    assert [path.name for path in tmp_path.iterdir()] == [f"{DIGEST.hex}.window"]
    with pytest.raises(NotFound):
        load_reference(tmp_path, Digest.of(b"another"))


def test_a_reference_that_was_changed_is_refused(tmp_path: Path, frozen: Reference) -> None:
    data, other = frozen.data, Digest.of(b"another")
    for broken in (
        b"", b"{}", data[:-1], data + b"x", data.replace(b"window/1", b"window/2"),
        data.replace(b'"latency":[200]', b'"latency":[999]'), data.replace(b"latency", b"latencx"),
    ):  # fmt: skip
        assert broken != data
        with pytest.raises(ArtifactError):
            Reference.of(broken)
    (tmp_path / f"{other.hex}.window").write_bytes(data)
    with pytest.raises(ArtifactError) as refused:
        load_reference(tmp_path, other)
    assert refused.value.code == "window.other_version"


def test_the_same_kind_of_traffic_is_quiet(frozen: Reference) -> None:
    report = look(frozen, rows(200, 2), NGRAMS, NOW)
    assert (report.outcome, alarms(report)) == ("quiet", set())
    assert look(frozen, rows(200, 2), NGRAMS, NOW).to_json() == report.to_json()


def test_other_questions_and_slower_answers_are_found_and_told_apart(frozen: Reference) -> None:
    asked = look(frozen, rows(200, 3, telecom=0.4), NGRAMS, NOW)
    assert "inputs.mmd" in alarms(asked)
    assert "latency.ks" not in alarms(asked)
    slower = look(frozen, rows(200, 4, slower=2.0), NGRAMS, NOW)
    assert alarms(slower) == {"latency.ks"}
    shown = slower.to_json()
    assert json.loads(json.dumps(shown)) == shown
    assert shown["outcome"] == "drifted"
    assert shown["findings"][0]["psi"] > 0.25
    assert shown["reference"]["window"] == str(frozen.digest)


def test_refusals_that_become_frequent_are_found(frozen: Reference) -> None:
    refusing = [
        observation({**line, "answer": "I can't help with that."} if i % 2 else line)
        for i, line in enumerate(lines(200, 5))
    ]
    assert "refusal.ks" in alarms(look(frozen, refusing, NGRAMS, NOW))


def test_a_change_too_small_to_matter_is_no_alarm_however_sure(frozen: Reference) -> None:
    moved = [
        replace(each, numbers={**each.numbers, "latency": each.numbers["latency"] + 10})
        for each in rows(200, 6)
    ]
    strict = look(frozen, moved, NGRAMS, NOW, least_psi=100.0)
    assert (strict.outcome, strict.p < strict.level) == ("quiet", True)


def test_few_rows_say_nothing(frozen: Reference) -> None:
    report = look(frozen, rows(30, 7, telecom=1.0, slower=9.0), NGRAMS, NOW)
    assert (report.outcome, report.p) == ("insufficient", 1.0)
    with pytest.raises(UsageError):
        look(frozen, [], NGRAMS, NOW)


def test_vectors_of_two_encoders_are_never_compared(frozen: Reference) -> None:
    with pytest.raises(UsageError) as refused:
        look(frozen, rows(60, 1), Encoder("another", NGRAMS.embed), NOW)
    assert refused.value.code == "drift.encoder"
    shorter = Encoder(NGRAMS.name, lambda texts: NGRAMS.embed(texts)[:, :5])
    with pytest.raises(UsageError):
        look(frozen, rows(60, 1), shorter, NOW)


def test_false_alarms_stay_within_the_level() -> None:
    draw = np.random.default_rng(8)
    found = []
    for run in range(400):
        numbers = draw.integers(0, 5, 60).astype(np.float64)  # with ties, as lengths have
        found.append(permutation_p(kolmogorov_smirnov(numbers), 30, 60, 199, run)[1])
    for level in (0.01, 0.05, 0.2):
        assert np.mean(np.array(found) <= level) <= level + 2.6 * (level / 400) ** 0.5


def test_a_budget_of_false_alarms_is_shared_by_prefixes_and_looks() -> None:
    assert Budget(0.1, prefixes=200, looks_per_day=2).level == pytest.approx(0.1 / 400)
    assert Budget(5.0).level == 0.05
    with pytest.raises(UsageError):
        Budget(0)


def test_a_budget_no_permutation_test_can_keep_is_refused(frozen: Reference) -> None:
    with pytest.raises(UsageError) as refused:
        look(frozen, rows(60, 1), NGRAMS, NOW, budget=Budget(0.001, prefixes=10_000))
    assert refused.value.code == "drift.budget"


def test_discoveries_are_those_of_benjamini_and_hochberg() -> None:
    # The example of their paper (1995, section 4): 4 of 15 at 0.05, where Bonferroni finds 3.
    paper = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
        0.5719, 0.6528, 0.7590, 1.0000,
    ]  # fmt: skip
    assert discoveries(paper, 0.05) == [True] * 4 + [False] * 11
    assert discoveries(paper[::-1], 0.05) == [False] * 11 + [True] * 4
    assert discoveries([], 0.05) == []


def test_distances_are_what_their_formulas_say() -> None:
    draw = np.random.default_rng(9)
    x, y = draw.normal(0, 1, (7, 3)), draw.normal(0.5, 1, (5, 3))
    pooled = np.concatenate([x, y]).astype(np.float32)
    squares = ((pooled[:, None] - pooled[None]) ** 2).sum(-1)
    scale = np.median(squares[np.triu_indices(12, 1)])
    kernel = np.exp(-squares / scale)
    within = [
        (k.sum() - len(k)) / (len(k) * (len(k) - 1)) for k in (kernel[:7, :7], kernel[7:, 7:])
    ]
    labels = np.array([[1.0] * 7 + [0.0] * 5], dtype=np.float32)
    expected = sum(within) - 2 * kernel[:7, 7:].mean()
    assert mmd(pooled)(labels)[0] == pytest.approx(expected, abs=1e-5)

    a, b = np.array([1.0, 1.0, 2.0, 3.0]), np.array([2.0, 2.0, 3.0, 5.0, 5.0])
    apart = max(abs((a <= v).mean() - (b <= v).mean()) for v in (1, 2, 3, 5))
    labels = np.array([[1.0] * 4 + [0.0] * 5], dtype=np.float32)
    assert kolmogorov_smirnov(np.concatenate([a, b]))(labels)[0] == pytest.approx(apart)

    few, many = np.array([0.0] * 95 + [1.0] * 5), np.array([0.0] * 75 + [1.0] * 25)
    shares = [(95.5 / 101, 75.5 / 101), (5.5 / 101, 25.5 / 101)]
    by_hand = sum((q - p) * np.log(q / p) for p, q in shares)
    assert psi(few, many) == pytest.approx(by_hand)
    assert psi(few, few) == 0.0
    assert psi(np.zeros(50), np.ones(50)) > 1


def test_a_log_becomes_observations_and_its_bad_lines_are_named(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    given: list[Any] = [
        {"id": "1", "input": "hello", "answer": "I can't.", "seconds": 0.5, "digest": str(DIGEST)},
        {
            "id": "2",
            "messages": [{"role": "user", "content": "hi"}],
            "refused": False,
            "score": 0.5,
        },
        {"id": "3", "input": "no", "digest": str(Digest.of(b"another"))},
        {"id": "4", "input": "slow", "seconds": "long"},
        {"id": "1", "feedback": "down", "correction": "Yes."},
        "not an object",
    ]
    log.write_text("".join(json.dumps(each) + "\n" for each in given))
    found = read_observations(log, str(DIGEST))
    assert [each.text for each in found.observations] == ["hello", "hi"]
    first, second = found.observations
    assert first.numbers == {"input_length": 5, "answer_length": 8, "refusal": 1, "latency": 0.5}
    assert second.numbers == {"input_length": 2, "refusal": 0, "score": 0.5}
    assert first.row["correction"] == "Yes."
    assert len(found.problems) == 2
    with pytest.raises(DataError):
        read_observations(tmp_path / "none.jsonl")


def test_a_snapshot_is_a_log_again_that_golden_rows_can_be_made_of(
    frozen: Reference, tmp_path: Path
) -> None:
    seen = [observation({**line, "feedback": "up"}) for line in lines(60, 10, telecom=1.0)]
    report = look(frozen, seen, NGRAMS, NOW)
    log = tmp_path / "snapshot.jsonl"
    log.write_bytes(report.snapshot)
    assert [each.row for each in read_observations(log).observations] == [each.row for each in seen]
    drafts = add_from_logs(golden(), log, "1.1.0")
    assert drafts.added == 60
    assert drafts.golden.rows[0].references


def test_an_alarm_opens_one_record_with_all_it_saw(tmp_path: Path, frozen: Reference) -> None:
    with Registry.open(init(Layout(tmp_path / "registry")).directory) as registry:
        digest = publish(registry).digest
        registry.release(f"{NAME}@1.0.0", policy=POLICY, by=by())
        reference = Reference.of(replace(frozen.window, digest=digest).to_bytes())
        quiet = look(reference, rows(200, 2), NGRAMS, NOW)
        assert record(quiet, registry, by("watch")) is None
        report = look(reference, rows(200, 11, telecom=0.8), NGRAMS, NOW)
        entry = record(report, registry, by("watch"))
        assert entry is not None
        assert record(report, registry, by("watch")) == entry
        (reason,) = why(registry, NAME).reasons
        event = reason.drifts[0].event
        assert event.measure == report.findings[0].measure
        assert registry.blobs.get(event.snapshot, 1 << 20) == report.snapshot
        assert Reference.of(registry.blobs.get(event.window, 1 << 26)) == reference


def test_feedback_of_two_arms_is_compared_by_key() -> None:
    def said(arm: str, count: int, down: float, calls: float) -> list[dict[str, Any]]:
        draw = np.random.default_rng(len(arm))
        return [
            {
                "key": f"{arm}-{number % (count // 2)}",  # two requests of each key
                "feedback": "down" if draw.random() < down else "up",
                "escalated": bool(draw.random() < calls),
            }
            for number in range(count)
        ]

    assert Feedback.of([{"key": "a", "feedback": "up"}, {"key": "a", "feedback": "down"}]) == (
        Feedback(keys=1, escalated=0, rated=1, down=1)
    )
    stable = Feedback.of(said("stable", 8_000, 0.05, 0.02))
    worse = compare_feedback(stable, Feedback.of(said("canary", 4_000, 0.15, 0.02)))
    assert worse["thumbs_down"].is_different
    assert worse["thumbs_down"].low > 0
    assert not worse["escalations"].is_different
    few = compare_feedback(stable, Feedback.of(said("canary", 40, 0.9, 0.9)))
    assert not any(each.is_different for each in few.values())


def test_hidden_states_are_those_of_the_bare_model_text_by_text() -> None:
    base = tiny_base()
    texts = ["hello", "a longer question, really?", "", "x"]
    found = hidden_states(base).embed(texts)
    assert found.shape == (4, 32)
    for text, vector in zip(texts, found, strict=True):
        ids = base.required_tokenizer()(text or " ", return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            states = base.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
        expected = torch.nn.functional.normalize(states.mean(0), dim=-1).numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-4)


def test_hidden_states_find_other_questions(tmp_path: Path) -> None:
    encoder = hidden_states(tiny_base())
    frozen = freeze_reference(tmp_path, DIGEST, rows(100, 1), encoder, NOW)
    assert look(frozen, rows(100, 2), encoder, NOW).outcome == "quiet"
    assert "inputs.mmd" in alarms(look(frozen, rows(100, 3, telecom=0.6), encoder, NOW))
