"""Chains: each step reads what the step before wrote, and the whole is gated by its ordered digests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foreword.artifact import Digest
from foreword.errors import ConfigError, EngineFailed, TrustError, UsageError
from foreword.evaluation.gates.attest import CHAIN_KIND, attest_chain, require_chain
from foreword.evaluation.gates.chain_file import load_chain
from foreword.evaluation.gates.chains import Chain, Step, replay_chains
from foreword.evaluation.gates.decide import decide
from foreword.evaluation.gates.verdict import Subject, Verdict
from foreword.evaluation.golden import GoldenSet
from foreword.evaluation.metrics.suite import suite
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.runs.ask import Ask, Finished
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.embedded import embedded
from foreword.evaluation.runs.store import AnswerStore
from foreword.evaluation.scorecards.evaluation import evaluate
from foreword.prefix.loading import load_prefix
from foreword.serving.generation import GenerationRequest, generate
from foreword.signing.envelope import Envelope
from foreword.signing.verify import VerifiedArtifact, verify
from tests.artifact.samples import sample
from tests.evaluation.arms import HEADER, policy, rows
from tests.serving import prefix_samples
from tests.signing.made import key, signed
from tests.signing.made import policy as trust
from tests.tiny import tiny_base

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
PLANNER, ANSWER = sample(name="acme/planner"), sample(name="acme/answer")
OTHER = sample(name="acme/answer", version="2.0.0")
GREEDY = Decoding(max_new_tokens=4)
SET = GoldenSet(HEADER, tuple(rows(40)))


def chain(name: str = "candidate", second: Digest = ANSWER.digest) -> Chain:
    reads = {"input": "{input} by {plan}"}
    return Chain(name, (Step("plan", PLANNER.digest), Step("answer", second, reads)))


class Agent:
    """Plans a word, and answers right if it is asked by that plan with a good prefix."""

    def __init__(self) -> None:
        self.asked: list[list[Ask]] = []

    def __call__(self, asks: Sequence[Ask], decoding: Decoding, finished: Finished) -> None:
        self.asked.append(list(asks))
        for place, ask in enumerate(asks):
            digest = ask.variant.digest
            text = "plan" if digest == PLANNER.digest else "no"
            if digest == ANSWER.digest and ask.row.text.endswith("by plan"):
                text = "yes"
            finished(place, Answer(text, digest, 2, 0.5))


def replayed(agent: Agent, *chains: Chain, store: AnswerStore | None = None):  # type: ignore[no-untyped-def]
    return replay_chains(chains, SET, agent, GREEDY, base="fingerprint", engine="e", store=store)


def test_every_step_of_all_chains_is_one_pass_and_reads_the_one_before() -> None:
    agent = Agent()
    done = replayed(agent, chain().bare(), chain("incumbent", OTHER.digest), chain())
    # Both chains plan with the same prefix, so that is asked once; the bare chain plans by itself.
    assert [len(asks) for asks in agent.asked] == [80, 120]
    assert {ask.row.text for ask in agent.asked[1] if ask.row.id == "r3"} == {
        "q3 by no",
        "q3 by plan",
    }
    assert done.answers["candidate"]["r3"] == Answer("yes", chain().key, 4, 1.0)
    assert done.answers["incumbent"]["r3"].text == done.answers["base"]["r3"].text == "no"


def test_a_key_is_all_digests_in_order() -> None:
    first, second = chain().steps
    keys = {
        chain().key,
        chain(second=OTHER.digest).key,
        Chain("x", (second, first)).key,
        Chain("x", (first, Step("answer", ANSWER.digest))).key,
        chain().bare().key,
    }
    assert len(keys) == 5
    assert chain("another name").key == chain().key
    with pytest.raises(UsageError, match="different names"):
        Chain("x", (first, first))


def test_a_stopped_chain_goes_on_and_a_changed_step_is_asked_again(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store:
        replayed(Agent(), chain(), store=store)
    with AnswerStore(tmp_path) as store:
        again = Agent()
        assert replayed(again, chain(), store=store).asked == 0
        assert again.asked == []
        other = Agent()
        assert replayed(other, chain(second=OTHER.digest), store=store).asked == 40
        assert [ask.variant.digest for ask in other.asked[0][:1]] == [OTHER.digest]


def test_an_answer_of_another_prefix_is_none() -> None:
    def wrong(asks: Sequence[Ask], decoding: Decoding, finished: Finished) -> None:
        finished(0, Answer("yes", OTHER.digest))

    def silent(asks: Sequence[Ask], decoding: Decoding, finished: Finished) -> None:
        pass

    for generate_, hint in ((wrong, "attached instead"), (silent, "did not come")):
        with pytest.raises(EngineFailed, match=hint):
            replay_chains([chain()], SET, generate_, GREEDY, base="b")


def test_the_engine_runs_a_chain_as_calling_it_twice_does() -> None:
    base = tiny_base()
    made = [prefix_samples.artifact(base, n, probed=True) for n in (1, 2)]
    one, two = (load_prefix(base, each) for each in made)
    steps = (
        Step("plan", one.digest), Step("answer", two.digest, {"input": "{plan}{input}"}),
    )  # fmt: skip
    run = embedded(base, {one.digest: one, two.digest: two})
    golden = GoldenSet(HEADER, tuple(rows(3)))
    done = replay_chains([Chain("c", steps)], golden, run, GREEDY, base=str(base.ref.fingerprint))
    for row in golden.rows:
        (plan,) = generate(base, [GenerationRequest(row.columns, one)], max_new_tokens=4)
        asked = {"input": plan.text + row.text}
        (answer,) = generate(base, [GenerationRequest(asked, two)], max_new_tokens=4)
        assert done.answers["c"][row.id].text == answer.text


def verdict_on(what: Chain) -> Verdict:
    done = replayed(Agent(), what.bare(), what)
    asked = policy(rules=[{"metric": "task_completion", "least": 0.8}])
    subject = Subject("acme/agent", "", what.key)
    return decide([evaluate(done, suite(["task_completion"]))], asked, subject, NOW)


def known(*words: Mapping[Digest, Envelope]) -> dict[Digest, VerifiedArtifact]:
    """The artifacts with their signatures and what was attested about them, verified."""
    trusted = trust(key("ana"), key("judge"))
    found = {}
    for each in (PLANNER, ANSWER, OTHER):
        said = [word[each.digest].to_bytes() for word in words if each.digest in word]
        given = (each.manifest_bytes, each.tensor_bytes, [signed(each, key("ana")), *said])
        found[each.digest] = verify(*given, trusted, NOW + timedelta(hours=1))
    return found


def test_a_chain_needs_the_word_that_this_very_chain_passes() -> None:
    good, bad = chain(), chain(second=OTHER.digest)
    verdicts = verdict_on(good), verdict_on(bad)
    assert [each.outcome for each in verdicts] == ["pass", "fail"]
    artifacts = (PLANNER, ANSWER, OTHER)
    words = attest_chain(verdicts[0], good, artifacts, key("judge"), NOW)
    assert set(words) == {PLANNER.digest, ANSWER.digest}
    verified = known(words)
    assert [a.finding.kind for a in verified[ANSWER.digest].attestations] == [CHAIN_KIND]
    require_chain(good, verified)
    with pytest.raises(TrustError, match="nobody trusted has judged the chain"):
        require_chain(bad, verified)
    later = NOW + timedelta(seconds=1)
    refused = attest_chain(verdicts[1], bad, artifacts, key("judge"), later)
    with pytest.raises(TrustError, match="was judged 'fail'"):
        require_chain(bad, known(words, refused))
    require_chain(good, known(words, refused))  # what fails with others passes by itself
    with pytest.raises(UsageError, match="judge it again"):
        attest_chain(verdicts[0], bad, artifacts, key("judge"), NOW)
    with pytest.raises(UsageError, match="was not given"):
        attest_chain(verdicts[0], good, [PLANNER], key("judge"), NOW)


def test_a_chain_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(
        "name: acme/agent\nspecialty: support\nsteps:\n"
        "- {name: plan, prefix: acme/planner}\n"
        '- {name: answer, prefix: acme/answer@1.0.0, inputs: {input: "{input} by {plan}"}}\n'
    )
    read = load_chain(file)
    assert read.prefixes == ("acme/planner", "acme/answer@1.0.0")
    digests = {"acme/planner": PLANNER.digest, "acme/answer@1.0.0": ANSWER.digest}
    assert read.chain("candidate", digests).key == chain().key
    file.write_text(file.read_text().replace("inputs:", "input:"))
    with pytest.raises(ConfigError, match=r"did you mean 'steps\.inputs'"):
        load_chain(file)
