"""Golden sets in one's own tests: `@pytest.mark.golden("set.jsonl", prefix="my-prefix", policy="gate.yaml")`.

    def test_support_is_as_good_as_before(golden_verdict):
        assert golden_verdict.passed, golden_verdict.to_markdown()

Fixtures: `golden_evaluations` (what was measured), `golden_scorecards`, `golden_verdict` (needs a policy).
Whatever several tests ask of the same base, prefixes and sets is generated once. Nothing of it is
imported before a test asks for a fixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from foreword.artifact import Artifact
    from foreword.evaluation.gates.judging import Contestant
    from foreword.evaluation.gates.verdict import Verdict
    from foreword.evaluation.runs.endpoint import Endpoint
    from foreword.evaluation.scorecards.evaluation import Evaluation
    from foreword.evaluation.scorecards.scorecard import Scorecard
    from foreword.prefix.base_model import BaseModel

_MARK = (
    "golden(*sets, prefix, incumbent=None, base=None, url=None, policy=None, max_new_tokens=128, "
    "allow=()): judge a prefix by golden sets; with url, `prefix` is the model's name there"
)
_LOADED: dict[str, Any] = {}
"""Bases by name, for the whole session."""


@dataclass(frozen=True)
class _Asked:
    """The arguments of a mark; paths are relative to the test's file."""

    sets: tuple[str, ...]
    prefix: str
    incumbent: str | None
    base: str | None
    url: str | None
    policy: str | None
    max_new_tokens: int
    allow: tuple[str, ...]
    answers: str
    here: Path


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("foreword", "golden sets")
    group.addoption("--golden-base", help="base model of tests marked golden that name none")
    group.addoption("--golden-url", help="endpoint of tests marked golden that name none")
    group.addoption("--golden-answers", help="directory where answers are kept between runs")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARK)


@pytest.fixture
def golden_evaluations(request: pytest.FixtureRequest) -> list[Evaluation]:
    """What the variants `base`, `incumbent` and `candidate` answered to each set, measured."""
    return _evaluations(_asked(request))


@pytest.fixture
def golden_scorecards(golden_evaluations: list[Evaluation]) -> list[Scorecard]:
    """The scorecard of each set."""
    from datetime import UTC, datetime

    from foreword.evaluation.scorecards.scorecard import build

    return [build(each, datetime.now(UTC)) for each in golden_evaluations]


@pytest.fixture
def golden_verdict(request: pytest.FixtureRequest, golden_evaluations: list[Evaluation]) -> Verdict:
    """The gate's verdict by the mark's policy."""
    from datetime import UTC, datetime

    from foreword.evaluation.gates.decide import decide
    from foreword.evaluation.gates.facts import facts_of
    from foreword.evaluation.gates.policy import load_policy
    from foreword.evaluation.gates.verdict import Subject

    asked = _asked(request)
    if asked.policy is None:
        raise pytest.UsageError("golden_verdict needs a mark with policy=FILE")
    artifact = None if asked.url else _artifact(asked, asked.prefix)
    digest = golden_evaluations[0].replay.variants[-1].digest
    subject = Subject(asked.prefix, "", digest)
    if artifact is not None:
        subject = Subject(artifact.manifest.name, artifact.manifest.version, artifact.digest)
    facts = facts_of(artifact.manifest, artifact.digest) if artifact else None
    policy = load_policy(asked.here / asked.policy)
    return decide(golden_evaluations, policy, subject, datetime.now(UTC), facts=facts)


def _asked(request: pytest.FixtureRequest) -> _Asked:
    mark = request.node.get_closest_marker("golden")
    if mark is None or not mark.args or "prefix" not in mark.kwargs:
        raise pytest.UsageError(
            f'{request.node.nodeid} needs @pytest.mark.golden("set.jsonl", prefix=...)'
        )
    known = {"prefix", "incumbent", "base", "url", "policy", "max_new_tokens", "allow"}
    if unknown := sorted(set(mark.kwargs) - known):
        raise pytest.UsageError(
            f"golden knows no {unknown[0]!r}; it has {', '.join(sorted(known))}"
        )
    config = request.config
    answers = config.getoption("--golden-answers") or config.cache.mkdir("golden")
    said = mark.kwargs
    return _Asked(
        tuple(mark.args),
        said["prefix"],
        said.get("incumbent"),
        said.get("base") or config.getoption("--golden-base"),
        said.get("url") or config.getoption("--golden-url"),
        said.get("policy"),
        said.get("max_new_tokens", 128),
        tuple(said.get("allow", ())),
        str(answers),
        request.path.parent,
    )


def _evaluations(asked: _Asked) -> list[Evaluation]:
    from foreword.evaluation.gates.judging import field_of, judge_sets, require_matches
    from foreword.evaluation.golden import read_golden
    from foreword.evaluation.runs.decoding import Decoding
    from foreword.evaluation.runs.store import AnswerStore

    sets = [read_golden(asked.here / each) for each in asked.sets]
    who = _contestants(asked)
    require_matches(sets, who)
    decoding = Decoding(asked.max_new_tokens)
    field = field_of(who, _base(asked), sets[0])
    with AnswerStore(Path(asked.answers)) as store:
        return judge_sets(sets, field, decoding, allowed=asked.allow, store=store)


def _contestants(asked: _Asked) -> list[Contestant]:
    """The base, unless an endpoint answers; the incumbent, if there is one; the candidate."""
    from foreword.evaluation.gates.judging import Contestant
    from foreword.evaluation.gates.policy import BASE, CANDIDATE, INCUMBENT

    named = {INCUMBENT: asked.incumbent, CANDIDATE: asked.prefix}
    if asked.url is not None:
        at = _endpoint(asked.url)
        return [Contestant(name, None, at, model) for name, model in named.items() if model]
    prefixes = [
        Contestant(name, _artifact(asked, text)) for name, text in named.items() if text is not None
    ]
    return [Contestant(BASE), *prefixes]


def _endpoint(url: str) -> Endpoint:
    import os

    from foreword.evaluation.runs.endpoint import Endpoint

    return Endpoint(url, os.environ.get("FOREWORD_API_KEY") or None)


def _artifact(asked: _Asked, text: str) -> Artifact:
    """From a directory, or else from the registry of this machine, as it is trusted here."""
    from datetime import UTC, datetime

    from foreword.artifact import open_artifact
    from foreword.registry.claims import without_requirements
    from foreword.registry.registry import Registry
    from foreword.signing.store import load_policy

    if (asked.here / text).is_dir():
        return open_artifact(asked.here / text)
    with Registry.open() as registry:
        digest = registry.resolve(text).digest
        policy = without_requirements(load_policy())
        return registry.fetch(digest, policy, datetime.now(UTC)).artifact


def _base(asked: _Asked) -> BaseModel | None:
    if asked.url is not None:
        return None
    if asked.base is None:
        raise pytest.UsageError("name the base model: base= in the mark, or --golden-base")
    if asked.base not in _LOADED:
        from foreword.prefix.base_model import load_base

        _LOADED[asked.base] = load_base(asked.base)
    return _LOADED[asked.base]  # type: ignore[no-any-return]
