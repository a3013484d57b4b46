"""The commands that judge: what they print, write and refuse, and their exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from foreword.artifact import Artifact, open_artifact, write_artifact
from foreword.cli.main import app
from foreword.evaluation.gates.plan import plan
from foreword.evaluation.gates.policy import load_policy as read_policy
from foreword.evaluation.gates.verdict import EXIT_CODES
from foreword.evaluation.golden import read_golden
from foreword.evaluation.metrics.suite import suite
from foreword.prefix.base_model import load_base
from foreword.registry.entries import By
from foreword.registry.facts import Base
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from foreword.signing.keys import new_key
from foreword.signing.policy import TenantRule, TrustedKey, TrustPolicy
from foreword.signing.store import load_policy
from tests.cli.test_docs import commands
from tests.evaluation.commands import Commands, write_policy, write_set
from tests.evaluation.servers import Reply, said, serving
from tests.serving import prefix_samples
from tests.signing.made import signed
from tests.tiny import tiny, tokenizer

ROWS = [{"id": f"r{i}", "input": f"ab{i}", "cohort": f"c{i % 2}"} for i in range(40)]
LENIENT = [{"metric": "empty", "margin": 1.5}]
STRICT = [{"metric": "same_answer", "most": 0.0001}]
BLUNT = [{"metric": "empty", "margin": 0.001}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home, a tiny base, two prefixes of it, sets for the first, policies."""
    path = tmp_path_factory.mktemp("judging")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREWORD_HOME", str(path / "home"))
        patch.delenv("FOREWORD_REGISTRY", raising=False)
        patch.delenv("FOREWORD_API_KEY", raising=False)
        tiny("llama").save_pretrained(path / "base")
        tokenizer().save_pretrained(path / "base")
        base = load_base(path / "base")
        for number in (1, 2):
            write_artifact(prefix_samples.artifact(base, number, probed=True), path / f"p{number}")
        write_set(path / "p1.jsonl", ROWS, name="acme/p1", specialty="p1")
        write_set(path / "any.jsonl", ROWS, name="acme/any", specialty="any")
        write_policy(path / "lenient.yaml", rules=LENIENT)
        write_policy(path / "strict.yaml", rules=STRICT)
        write_policy(path / "blunt.yaml", rules=BLUNT)
        yield path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


def judge(place: Path, *sets: str, **more: str) -> list[str]:
    """Options that all of these commands take."""
    golden = [
        word for name in sets or ("p1",) for word in ("--golden", str(place / f"{name}.jsonl"))
    ]
    given = {"base": str(place / "base"), "max-new-tokens": "2", "metric": "empty", **more}
    return [*golden, *(word for name, value in given.items() for word in (f"--{name}", value))]


def test_evaluate_prints_and_writes_scorecards_and_goes_on(place: Path, run: Commands) -> None:
    out = place / "cards"
    first = run("evaluate", place / "p1", *judge(place, "p1", "any"), "--out", out)
    assert first.code == 0, first.err
    assert first.out.count("# NO GATE") == 2
    assert "160 of 160 answers" in first.err
    page = (out / "acme-p1.scorecard.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert {file.name for file in out.iterdir()} == {
        f"acme-{name}.scorecard.{form}" for name in ("p1", "any") for form in ("html", "md", "json")
    }
    again = run("evaluate", place / "p1", *judge(place, "p1", "any"), "--format", "json")
    assert " answers" not in again.err, "everything was in the store"
    (card, _) = json.loads(again.out)["scorecards"]
    assert [v["name"] for v in card["variants"]] == ["base", str(place / "p1")]
    assert card["variants"][1]["digest"] == str(open_artifact(place / "p1").digest)


def test_scorecards_also_show_what_a_prefix_does_elsewhere(place: Path, run: Commands) -> None:
    """Only a gate refuses a set for another specialty."""
    done = run(
        "evaluate", place / "p1", place / "p2", *judge(place), "--no-bare", "--format", "json"
    )
    assert done.code == 0, done.err
    (card,) = json.loads(done.out)["scorecards"]
    assert [v["name"] for v in card["variants"]] == [str(place / "p1"), str(place / "p2")]


def test_compare_takes_any_two_sides(place: Path, run: Commands) -> None:
    def answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        assert headers["Authorization"] == "Bearer secret"
        return said("" if body["model"] == "silent" else "something")

    (place / "key").write_text("secret\n")
    golden = ["--golden", str(place / "p1.jsonl"), "--metric", "empty", "--format", "json"]
    with serving(answer) as url:
        two = run("compare", f"{url}#silent", f"{url}#loud", *golden, "--key-file", place / "key")
        mixed = run(
            "compare", "base", f"{url}#silent", *golden, "--key-file", place / "key", "--base",
            place / "base", "--max-new-tokens", "2",
        )  # fmt: skip
    assert (two.code, mixed.code) == (0, 0), two.err + mixed.err
    (card,) = json.loads(two.out)["scorecards"]
    whole = card["comparisons"][0]
    assert (whole["candidate"], whole["difference"]) == (f"{url}#loud", -1.0)
    (card,) = json.loads(mixed.out)["scorecards"]
    assert [v["route"] for v in card["variants"]] == ["engine", "silent"]


@pytest.mark.parametrize(
    ("policy", "outcome"), [("lenient", "pass"), ("strict", "fail"), ("blunt", "insufficient")]
)
def test_gate_says_its_verdict_by_its_exit_code(
    place: Path, run: Commands, policy: str, outcome: str
) -> None:
    words = judge(place, policy=str(place / f"{policy}.yaml"))
    done = run("gate", place / "p1", *words, "--format", "json")
    assert done.code == EXIT_CODES[outcome], done.err  # type: ignore[index]
    verdict = json.loads(done.out)["verdict"]
    assert verdict["outcome"] == outcome
    page = run("gate", place / "p1", *words, "--format", "html").out
    word = {"pass": "PASS", "fail": "FAIL", "insufficient": "NOT ENOUGH EVIDENCE"}[outcome]
    assert word in page.upper()
    assert "acme/p1 1.0.0" in page


def test_gate_tells_what_could_be_decided_without_loading_anything(
    place: Path, run: Commands
) -> None:
    golden = ["--golden", place / "p1.jsonl", "--policy", place / "blunt.yaml"]
    told = json.loads(run.good("gate", "nowhere", *golden, "--plan", "--format", "json"))
    (rule,) = told["rules"]
    assert (rule["n"], rule["power"]) == (40, 0.0)
    assert rule["needed"] > 100_000
    assert "empty within 0.001" in run.good("gate", "nowhere", *golden, "--plan")


REFUSED: dict[str, tuple[list[str], str, int]] = {
    "another specialty": (["gate", "p2", "--policy", "lenient.yaml"], "golden.specialty", 4),
    "no such metric": (["gate", "p1", "--policy", "typo.yaml"], "metric.name", 2),
    "an endpoint without a model": (["evaluate", "http://127.0.0.1:1/v1"], "evaluation.side", 2),
    "nobody answers": (["evaluate", "http://127.0.0.1:1/v1#m"], "evaluation.endpoint", 9),
    "everything and a side": (["evaluate", "p1", "--all-released"], "evaluation.all_released", 2),
    "no registry": (["evaluate", "acme/none", "--registry", "none"], "registry.missing", 8),
    "no prefix": (["evaluate", "Bad Name"], "reference.malformed", 2),
}


@pytest.mark.parametrize("title", REFUSED)
def test_what_cannot_be_judged_is_said_in_one_line(
    place: Path, run: Commands, title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    write_policy(place / "typo.yaml", rules=[{"metric": "emty", "most": 0.1}])
    words, code, exit_code = REFUSED[title]
    done = run(*words, *judge(place))
    assert (done.code, f"error[{code}]" in done.err) == (exit_code, True), done.err
    assert len(done.err.strip().splitlines()) == 1


class Ground:
    """A registry that asks for an evaluation, with the first prefix released in it."""

    def __init__(self, place: Path, home: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setenv("FOREWORD_HOME", str(home))
        self.place, self.made = place, open_artifact(place / "p1")
        self.key = new_key("ci")
        trusted = {self.key.id: TrustedKey(self.key.public, "ci")}
        self.lenient = TrustPolicy(keys=trusted)
        strict = TrustPolicy(keys=trusted, tenants={"*": TenantRule(1, ("evaluation",))})
        home.mkdir(exist_ok=True)
        (home / "trust.toml").write_bytes(strict.to_toml())
        init(Layout(home / "registry"))
        self.registry = Registry.open()
        base = load_base(place / "base")
        self.registry.declare_base(Base(replace(base.ref, id="tiny"), base.geometry), by=self.by())
        self.publish(self.made)

    def publish(self, made: Artifact) -> None:
        """As before anybody asked for evaluations."""
        given = (made.manifest_bytes, made.tensor_bytes, [signed(made, self.key)])
        self.registry.publish(*given, policy=self.lenient, by=self.by())

    def by(self) -> By:
        return By("ana", datetime.now(UTC), "")


@pytest.fixture
def ground(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    made = Ground(place, tmp_path / "home", monkeypatch)
    yield made
    made.registry.close()


def test_a_signed_verdict_lets_a_registry_release(ground: Ground, run: Commands) -> None:
    ref = "acme/p1@1.0.0"
    assert run("registry", "release", ref).code == 7
    words = judge(ground.place, policy=str(ground.place / "lenient.yaml"))
    done = run("gate", ref, *words, "--sign", "ci")
    assert (done.code, "attested acme/p1 1.0.0: entry" in done.err) == (0, True), done.err
    run.good("registry", "release", ref)
    found = ground.registry.fetch(ground.made.digest, load_policy(), datetime.now(UTC))
    (word,) = found.attestations
    assert (word.finding.kind, word.finding.verdict) == ("evaluation", "pass")

    report = run("evaluate", "--all-released", *words, "--format", "json", "--sign", "ci")
    (result,) = json.loads(report.out)["results"]
    assert (report.code, result["fate"]) == (0, "survives"), report.err
    strict = judge(ground.place, policy=str(ground.place / "strict.yaml"))
    bad = run("evaluate", "--all-released", *strict, "--sign", "ci")
    assert (bad.code, "1 fails" in bad.out) == (10, True), bad.out
    assert run("generate", "hi", "--prefix", "acme/p1", "--base", ground.place / "base").code == 7


def test_a_chain_is_gated_as_one(ground: Ground, run: Commands) -> None:
    agent = ground.place / "agent.yaml"
    agent.write_text(
        "name: acme/agent\nspecialty: p1\nsteps:\n"
        f"- {{name: plan, prefix: {ground.place / 'p2'}}}\n"
        '- {name: answer, prefix: acme/p1@1.0.0, inputs: {input: "{plan} {input}"}}\n'
    )
    words = judge(ground.place, policy=str(ground.place / "lenient.yaml"))
    done = run("gate", agent, *words, "--sign", "ci", "--format", "json")
    assert done.code == 0, done.err
    subject = json.loads(done.out)["verdict"]["subject"]
    ((kind, verdict),) = [
        (known.claim.kind, known.claim.verdict)
        for known in ground.registry.refresh().version(ground.made.digest).claims
        if known.claim.kind != "sign"
    ]
    assert (kind, verdict) == ("chain", "pass")
    beside = (ground.place / "p2" / "envelopes.jsonl").read_text()
    (ground.place / "p2" / "envelopes.jsonl").unlink()
    assert subject["name"] == "acme/agent"
    assert len(beside.splitlines()) == 1


def test_golden_sets_are_checked_split_and_added_to(place: Path, run: Commands) -> None:
    told = run.good("golden", "validate", place / "p1.jsonl")
    assert "rows       40, 0 with references" in told
    assert "cohorts    c0 20, c1 20" in told
    bad = place / "bad.jsonl"
    bad.write_text((place / "p1.jsonl").read_text() + '{"id": "r0", "input": "new"}\n{"id": 1}\n')
    done = run("golden", "validate", bad)
    assert done.code == 2
    assert re.search(rf"{bad}:42: the id of row 'r0' occurs in line 2", done.err), done.err
    assert f"{bad}:43" in done.err
    assert len(json.loads(run("golden", "validate", bad, "--json").out)["problems"]) == 2
    sides = [place / "held.jsonl", place / "rest.jsonl"]
    cut = [
        "golden",
        "split",
        str(place / "p1.jsonl"),
        "--held",
        str(sides[0]),
        "--rest",
        str(sides[1]),
    ]
    run.good(*cut, "--share", "0.5")
    held, rest = ({*side.read_text().splitlines()[1:]} for side in sides)
    assert len(held) + len(rest) == 40
    assert not held & rest
    assert run(*cut).code == 6, "what is there is not replaced"
    log = place / "log.jsonl"
    log.write_text('{"id": "1", "input": "ab1", "answer": "x"}\n{"id": "2", "input": "new one"}\n')
    more = place / "more.jsonl"
    told = run.good(
        "golden",
        "add-from-logs",
        place / "p1.jsonl",
        "--log",
        log,
        "--version",
        "1.1.0",
        "--out",
        more,
    )
    assert told.startswith("1 draft rows added, 1 asked before, 0 lines left out")
    assert json.loads(more.read_text().splitlines()[-1])["tags"] == ["draft"]


def test_drift_is_frozen_looked_at_and_recorded(ground: Ground, run: Commands) -> None:
    place, ref = ground.place, "acme/p1@1.0.0"

    def log(name: str, word: str, count: int = 120) -> Path:
        file = place / name
        rows = [
            {"id": f"{i}", "input": f"{word} {i * 7919 % 1000}", "answer": "ok"}
            for i in range(count)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    run.good("drift", "freeze", ref, "--log", log("then.jsonl", "where is my order"))
    assert run("drift", "freeze", ref, "--log", place / "then.jsonl").code == 2
    quiet = run("drift", "look", ref, "--log", log("same.jsonl", "where is my order"), "--json")
    assert (quiet.code, json.loads(quiet.out)["outcome"]) == (0, "quiet")
    few = run("drift", "look", ref, "--log", log("few.jsonl", "where is my order", 9))
    assert (few.code, few.out.startswith("insufficient")) == (11, True)
    other = log("now.jsonl", "how do I cook rice with beans")
    moved = run("drift", "look", ref, "--log", other, "--record")
    assert moved.code == 10, moved.out
    assert "recorded as entry" in moved.out
    assert "drifted" in run.good("registry", "log", "acme/p1")


def test_feedback_of_two_arms_is_compared(place: Path, run: Commands) -> None:
    def arm(name: str, down: int) -> Path:
        rows = [{"key": f"{name}{i}", "feedback": "down" if i < down else "up"} for i in range(400)]
        (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return place / name

    stable = arm("stable", 40)
    same = run("drift", "feedback", "--stable", stable, "--canary", arm("canary", 40), "--json")
    assert (same.code, json.loads(same.out)["thumbs_down"]["difference"]) == (0, 0.0)
    worse = run("drift", "feedback", "--stable", stable, "--canary", arm("canary", 200))
    assert (worse.code, "thumbs_down" in worse.out) == (10, True)


EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_examples_are_true() -> None:
    """The workflow's commands have options that exist, and the example policy asks for known metrics."""
    workflow = yaml.safe_load((EXAMPLES / "workflows" / "gate.yml").read_text())
    steps = workflow["jobs"]["gate"]["steps"]
    lines = [step["run"].split() for step in steps if step.get("run", "").startswith("foreword ")]
    assert [words[1] for words in lines] == ["base", "golden", "gate"]
    known = dict(commands(typer.main.get_command(app)))
    for words in lines:
        (path,) = [
            each
            for each in known
            if " ".join(words).startswith(f"{each} ") or each == " ".join(words)
        ]
        options = {name for parameter in known[path].params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options
    policy = read_policy(EXAMPLES / "golden" / "gate.yaml")
    sets = [
        read_golden(EXAMPLES / "golden" / f"{name}.jsonl")
        for name in ("tickets", "off-task", "safety")
    ]
    assert {each.rows for each in plan(policy, sets)} >= {
        "demo/safety@1.0.0 #safety",
        "demo/tickets@1.0.0",
    }
    assert len(suite(sorted(policy.metrics))) == len(policy.metrics)


def test_the_exit_codes_of_verdicts_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for code in EXIT_CODES.values():
        assert f"| {code} |" in text
