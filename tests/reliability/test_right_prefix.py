"""R15: every request is answered with exactly the prefix it named, or with an error that was caused."""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from foreword.artifact import Digest, PromptFormat, Site
from foreword.errors import EngineFailed
from foreword.prefix.attach import attach
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import demo_base
from foreword.prefix.kv import PrefixKV
from foreword.prefix.loading import LoadedPrefix
from foreword.prefix.observe import kv_of_tokens
from foreword.serving.contract import AdapterSet, GenerateRequest
from foreword.serving.engine.engine import Engine, EngineSettings, Failure
from foreword.serving.engine.model.attention import Piece
from foreword.serving.engine.residency.held import HeldPrefixes
from tests.reliability import serving_model
from tests.reliability.forked import FORKED
from tests.reliability.marked import (
    BARE,
    COVERS,
    FIRST,
    MARGIN,
    MARKERS,
    VOICES,
    marked_base,
    marked_prefix,
    token,
)
from tests.reliability.report import LONG, Goals
from tests.reliability.seeded_bugs import BUGS, Bug
from tests.reliability.serving_model import RATES, Size, World, drive
from tests.reliability.serving_oracle import Tally

pytestmark = pytest.mark.reliability("R15")

SIZE = Size() if LONG else Size(names=250, room=12)
REQUESTS = 200_000 if LONG else 3_500
PROCESSES = 2 if LONG else 1
TROUBLE = 1.0 if LONG else 2.0
WRONG = ("wrong prefixes", "base-model fallbacks", "stale answers")
BROKEN = (
    "wrong digests",
    "lost or doubled chunks",
    "events after the end",
    "wrong log-probabilities",
)
AMISS = ("errors nobody caused", "left behind", "reuse across tenants or prefixes")


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return marked_base()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The toy itself.


def test_a_prefix_forces_its_marker_behind_any_prompt(base: BaseModel, goals: Goals) -> None:
    rng, least, cases = random.Random(0), float("inf"), 300
    for case in range(cases):
        voice, number = rng.randrange(VOICES), rng.randrange(FIRST, MARKERS)
        prompt = [token(rng.randrange(MARKERS), voice) for _ in range(rng.randint(1, 40))]
        if case % 5 == 0:
            logits, wanted = _logits(base, None, prompt), token(BARE, voice)
        else:
            covers = COVERS[case % len(COVERS)]
            prefix = marked_prefix(number, length=rng.randint(1, 8), covers=covers, seed=case)
            logits, wanted = _logits(base, prefix, prompt), token(number, voice)
        others = logits.clone()
        others[:, wanted] = -torch.inf
        least = min(least, float((logits[:, wanted] - others.logsumexp(-1)).min()))
    goals.goal(f"toy: the forced token is at least e^{MARGIN:g} times as likely as all others",
               value=least, passed=least >= MARGIN, count=cases)  # fmt: skip


@torch.no_grad()
def _logits(base: BaseModel, prefix: PrefixKV | None, prompt: list[int]) -> torch.Tensor:
    with attach(base, prefix):
        logits: torch.Tensor = base.model(torch.tensor([prompt])).logits[0]
    return logits


# The engine under everything at once.


def test_no_request_is_answered_with_another_prefix(
    goals: Goals, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally()
    for part in _parts():
        tally.add(part)
    with capsys.disabled():
        print(f"\n{dict(sorted(tally.counts.items()))}\nfailures {dict(tally.failures)}")
        print("\n".join(tally.described))
    asked, answered = tally.counts["requests"], tally.counts["answered"]
    for kind in (*WRONG, *BROKEN, *AMISS):
        goals.goal(f"{kind}, over {SIZE.names:,} prefixes: none", value=tally.wrongs[kind],
                   passed=not tally.wrongs[kind], count=asked)  # fmt: skip
    ended = answered + tally.counts["failed"]
    goals.goal("requests that ended exactly once: all", value=ended, passed=ended == asked,
               count=asked)  # fmt: skip
    goals.goal("share of requests that were answered, for all that was done to them: over 0.6",
               value=answered / asked, passed=answered > 0.6 * asked, count=asked)  # fmt: skip
    missing = [what for what in EXERCISED if not tally.counts[what]]
    goals.goal("kinds of events that the run lacked: none", value=", ".join(missing) or "none",
               passed=not missing, count=len(EXERCISED))  # fmt: skip


EXERCISED = (
    "cancelled while waiting", "cancelled while loading", "cancelled while prefilling",
    "cancelled while decoding", "copies damaged on disk", "evictions", "evicted on demand",
    "loads from disk", "loads from fetch", "republished", "revoked", "with a reused beginning",
    "fault: build", "fault: choose", "fault: doomed", "fault: enter", "fault: not finite",
    "fault: resize", "fault: run after", "fault: run before", "fault: share", "fault: undecided",
)  # fmt: skip


def _parts() -> list[Tally]:
    if PROCESSES == 1:
        return [part(0)]
    with FORKED.Pool(PROCESSES) as pool:
        return pool.map(part, range(PROCESSES))


def part(seed: int) -> Tally:
    """One process's share, on one thread."""
    torch.set_num_threads(1)
    return serving_model.run(marked_base(), SIZE, seed, REQUESTS // PROCESSES, TROUBLE)


# The same, in small: hypothesis looks for the shortest way to a fault.


@functools.cache
def small_base() -> BaseModel:
    return marked_base()


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(small_base(), Size(names=5, room=2, most_running=4, skew=0.5), seed=0)

    @rule(seed=st.integers(0, 2**16), count=st.integers(1, 5))
    def submit(self, seed: int, count: int) -> None:
        rng = random.Random(seed)
        for _ in range(count):
            self.world.submit(rng)

    @rule(seed=st.integers(0, 2**16), action=st.sampled_from(list(RATES)))
    def act(self, seed: int, action: Callable[[World, random.Random], None]) -> None:
        action(self.world, random.Random(seed))

    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.world.step()
            self.world.rest()

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert not self.world.tally.wrongs, self.world.tally.described

    def teardown(self) -> None:
        with self.world:
            self.world.drain()
            self.nothing_is_wrong()


def test_no_order_of_events_brings_a_wrong_prefix(goals: Goals) -> None:
    examples, steps = (300, 60) if LONG else (40, 30)
    machine = settings(max_examples=examples, stateful_step_count=steps, deadline=None,
                       derandomize=not LONG)  # fmt: skip
    run_state_machine_as_test(Machine, settings=machine)
    goals.goal("orders of events, found by hypothesis, that bring a wrong answer: none", value=0,
               passed=True, count=examples)  # fmt: skip


# Does the oracle see it?


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_the_oracle_sees_what_could_go_wrong(base: BaseModel, bug: Bug, goals: Goals) -> None:
    """A test that cannot fail proves nothing: each of these faults has to be seen."""
    seen = ""
    with (
        World(base, Size(names=40, room=6, most_running=16), seed=1) as world,
        pytest.MonkeyPatch.context() as patch,
    ):
        bug(patch)
        try:
            for _ in drive(world, random.Random(1), requests=5000, trouble=4.0):
                if world.tally.described:
                    seen = world.tally.described[0]
                    break
        except EngineFailed as error:
            seen = str(error)
        count = world.tally.counts["requests"]
    name = bug.__name__.replace("_", " ")
    goals.goal(f"a seeded fault is seen: {name}", value=seen[:120] or "not seen", passed=bool(seen),
               count=count)  # fmt: skip


# The real model.


@pytest.mark.real
def test_real_logits_in_a_mixed_batch_are_those_of_the_request_alone(goals: Goals) -> None:
    base = load_base(demo_base())
    prefixes = [_captured(base, number) for number in range(len(TEXTS))]
    kept = {prefix.digest: prefix.kv for prefix in prefixes}
    engine = Engine(
        base, HeldPrefixes(prefixes),
        EngineSettings(prompt_tokens=16, share_from=12, prompt_cache_bytes=0),
    )  # fmt: skip
    seen = _logits_by_request(engine)
    requests = _real_requests(base)
    mixed, in_batch = _answers(engine, *requests), {name: seen.pop(name) for name in list(seen)}
    from_alone = from_attached = 0.0
    differ = 0
    for request in requests:
        answer, logits = mixed[request.id], torch.stack(in_batch[request.id])
        alone = _answers(engine, request)[request.id]
        attached = _attached_logits(base, kept, request, answer)
        scale = float(attached.abs().max())
        differ += answer != alone or answer != attached.argmax(-1).tolist()
        apart = (logits - torch.stack(seen[request.id])).abs().max()
        from_alone = max(from_alone, float(apart) / scale)
        from_attached = max(from_attached, float((logits - attached).abs().max()) / scale)
    count = len(requests)
    goals.goal("real model: greedy answers in a mixed batch that differ from those alone: none",
               value=differ, passed=differ == 0, count=count)  # fmt: skip
    goals.goal("real model: logits in a mixed batch from those alone: at most 1e-4 of the largest",
               value=from_alone, passed=from_alone <= 1e-4, count=count)  # fmt: skip
    goals.goal("real model: logits in a mixed batch from those of attach: at most 1e-4 of the largest",
               value=from_attached, passed=from_attached <= 1e-4, count=count)  # fmt: skip


TEXTS = (
    "You answer in one word.", "Translate the sentence into German, and say nothing else.",
    "The customer is angry. Be polite, short, and offer a refund before anything else is said.",
    "Write like a sailor.", "List three facts about the topic, each in a line of its own.",
    "Summarize what follows for a child of six years, in words that it knows.", "Be brief.",
)  # fmt: skip
QUESTIONS = ("Where is my parcel?", "The tent is torn and it rained all night. What now?")
NEW = 8


def _captured(base: BaseModel, number: int) -> LoadedPrefix:
    """The keys and values of a text; every third lacks some layers."""
    tokens = torch.tensor([base.required_tokenizer()(TEXTS[number]).input_ids])
    kv = kv_of_tokens(base, {"input_ids": tokens}, tokens.shape[1])
    if number % 3 == 2:
        some = {i: layer for _, i, layer in kv if i % 4}
        kv = PrefixKV(kv.length, {Site.DECODER: some})
    prompt = PromptFormat("template", "{input}")
    return LoadedPrefix(f"acme/p{number}", "1.0.0", _name(number), kv, prompt)


def _name(number: int) -> Digest:
    return Digest.of(bytes([number]))


def _real_requests(base: BaseModel) -> list[GenerateRequest]:
    """One for each prefix and one without, with prompts of two lengths."""
    encode = base.required_tokenizer()
    return [
        GenerateRequest(
            id=str(number), prompt=tuple(encode(QUESTIONS[number % 2]).input_ids), max_tokens=NEW,
            adapters=AdapterSet(_name(number) if number < len(TEXTS) else None), ignore_eos=True,
        )
        for number in range(len(TEXTS) + 1)
    ]  # fmt: skip


def _logits_by_request(engine: Engine) -> defaultdict[str, list[torch.Tensor]]:
    """The logits that tokens will be chosen from, by request, from now on."""
    seen: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
    run = engine._runner.run

    def recorded(pieces: Sequence[Piece]) -> torch.Tensor:
        logits = run(pieces)
        owners = {id(job.answers[0].row): job for job in engine._jobs.values()}
        for piece, row in zip(pieces, logits, strict=True):
            job = owners[id(piece.row)]
            if piece.column + len(piece.tokens) >= job.first_column + len(job.request.prompt):
                seen[job.id].append(row.clone())
        return logits

    engine._runner.run = recorded  # type: ignore[method-assign]
    return seen


def _answers(engine: Engine, *requests: GenerateRequest) -> dict[str, list[int]]:
    tokens: dict[str, list[int]] = {request.id: [] for request in requests}
    for request in requests:
        engine.submit(request, 0.0)
    while engine.busy:
        for event in engine.step(0.0):
            if isinstance(event, Failure):
                raise event.error
            tokens[event.id] += event.tokens
        engine.check_integrity()
    return tokens


@torch.no_grad()
def _attached_logits(
    base: BaseModel, kept: Mapping[Digest, PrefixKV], request: GenerateRequest, answer: list[int]
) -> torch.Tensor:
    """What the model's own forward pass says at every token of the answer."""
    ids = torch.tensor([[*request.prompt, *answer[:-1]]])
    digest = request.adapters.prefix
    with attach(base, kept[digest] if digest is not None else None):
        logits: torch.Tensor = base.model(ids).logits[0, len(request.prompt) - 1 :].float()
    return logits
