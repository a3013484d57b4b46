"""R01: whatever bytes come, a reader accepts them rightly or refuses them with a typed error, soon."""

from __future__ import annotations

import os
import re
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from typing import Any

import pytest

from foreword.artifact import Digest, Geometry, LayerGeometry, Site, canonical
from foreword.artifact.canonical import MAX_MARKS
from foreword.artifact.manifest import MAX_TENSORS
from foreword.artifact.tensors import expected_tensors
from tests.artifact.samples import sample
from tests.reliability.fuzz import SLOW, Outcome, alone, feed, limit_memory, run_chunk
from tests.reliability.report import LONG, ROOT, Goals
from tests.reliability.targets import TARGETS, Parts, seeds

pytestmark = pytest.mark.reliability("R01")

INPUTS = 2_000_000 if LONG else 40_000
CHUNK = 20_000
ROOM = 64 << 20

_MANIFEST = ("json.", "manifest.", "digest.")
DEPTHS: dict[str, dict[str, tuple[tuple[str, ...], float]]] = {
    "artifact": {
        "get past the JSON": (("json.",), 0.6),
        "get past the manifest": (_MANIFEST, 0.5),
        "get past the digest": ((*_MANIFEST, "artifact."), 0.4),
        "are accepted": ((*_MANIFEST, "artifact.", "tensor."), 0.02),
    },
    "tensors": {"are accepted": (("tensor.",), 0.05)},
    "json": {"are accepted": (("json.",), 0.2)},
    "envelope": {"are accepted": (("trust.",), 0.05)},
    "statement": {"are accepted": (("trust.",), 0.05)},
    "policy": {"are accepted": (("trust.",), 0.05)},
}
"""How large a share of the mutants has to get how far: else the checks behind were never tried."""


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_reader(
    name: str, goals: Goals, capsys: pytest.CaptureFixture[str]
) -> None:
    count = round(INPUTS * TARGETS[name].share)
    outcome = fuzzed(name, count)
    with capsys.disabled() if LONG else nullcontext():
        print(
            f"\n{name}",
            *(f"{n:10,}  {code}" for code, n in sorted(outcome.codes.items())),
            sep="\n",
        )
    print(*outcome.wild, *outcome.alone, sep="\n")
    slowest = slowest_of(name, outcome)
    goals.goal(f"{name}: nothing is raised but typed refusals in plain words",
               value=len(outcome.wild), passed=not outcome.wild, count=count)  # fmt: skip
    goals.goal(f"{name}: nothing is accepted that another reader reads otherwise",
               value=len(outcome.alone), passed=not outcome.alone,
               count=outcome.codes["accepted"])  # fmt: skip
    goals.goal(f"{name}: no input takes over {1e3 * SLOW:.0f} ms (value in ms)",
               value=slowest * 1e3, passed=slowest <= SLOW, count=count)  # fmt: skip
    goals.goal(f"{name}: peak memory grows by at most 64 MiB (value in MiB)",
               value=outcome.growth / (1 << 20), passed=outcome.growth <= ROOM, count=count)  # fmt: skip
    for how_far, (groups, least) in DEPTHS[name].items():
        share = outcome.behind(*groups)
        goals.goal(f"{name}: at least {least:.0%} of the mutants {how_far}",
                   value=share, passed=share >= least, count=count)  # fmt: skip
    if name == "artifact":
        missed = documented() - set(outcome.codes)
        goals.goal(f"{name}: the mutants reach every refusal the format documents",
                   value=", ".join(sorted(missed)) or "none missed", passed=not missed,
                   count=len(documented()))  # fmt: skip


def test_the_largest_inputs_allowed_are_read_in_time(goals: Goals) -> None:
    cases = largest()
    seconds = {name: alone(target, parts) for name, (target, parts) in cases.items()}
    name = max(seconds, key=lambda name: seconds[name])
    goals.goal(f"the largest inputs take at most {1e3 * SLOW:.0f} ms (value in ms, of {name})",
               value=seconds[name] * 1e3, passed=seconds[name] <= SLOW, count=len(cases))  # fmt: skip


def test_another_spelling_of_a_header_is_accepted() -> None:
    # The fuzz would prove nothing if a reader refused all that is not its own writer's.
    for seed in seeds():
        data = seed.artifact.tensor_bytes
        size = int.from_bytes(data[:8], "little")
        loose = (
            data[8 : 8 + size].strip().replace(b",", b" , ").replace(b"decoder", b"d\\u0065coder")
        )
        parts = seed.sealed(len(loose).to_bytes(8, "little") + loose + data[8 + size :])
        verdict = feed(TARGETS["artifact"], parts)
        assert (verdict.code, verdict.alone) == ("accepted", None)


def fuzzed(name: str, count: int) -> Outcome:
    """The outcome of all chunks."""
    sizes = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
    outcome = Outcome()
    with feeders(len(os.sched_getaffinity(0)) if LONG else 1) as pool:
        for part in pool.map(run_chunk, [name] * len(sizes), range(len(sizes)), sizes):
            outcome.add(part)
    return outcome


def slowest_of(name: str, outcome: Outcome) -> float:
    """Seconds of the slowest input; those that seemed too slow are tried again, until one is."""
    slowest = outcome.slowest
    with feeders(1) as pool:
        for parts in outcome.slow:
            if slowest <= SLOW:
                slowest = max(slowest, pool.submit(alone, name, parts).result())
    return slowest


def feeders(workers: int) -> ProcessPoolExecutor:
    """Processes that each do one thing: memory is counted from a clean start, what runs away is
    stopped, and a crash breaks the pool instead of the test run."""
    return ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=limit_memory, max_tasks_per_child=1
    )


def largest() -> dict[str, tuple[str, Parts]]:
    """Sound inputs as large as the format allows, where a small one costs next to nothing."""
    one = LayerGeometry(1, 1, 1)
    geometry = Geometry({Site.DECODER: dict.fromkeys(range(MAX_TENSORS // 2), one)})
    zeros = {s.name: bytes(s.nbytes) for s in expected_tensors(geometry, 1, "float16")}
    layers = sample(geometry=geometry, length=1, dtype="float16", tensors=zeros)
    room = MAX_MARKS - 80
    cases = {"as many tensors as may be": (layers.manifest_bytes, layers.tensor_bytes)}
    for name, record in {
        "as many numbers as may be": {"x": [0.5] * room},
        "as many keys as may be": {f"{i:05}": 0 for i in range(room)},
        "as many lists as may be": {"x": [[]] * (room // 2)},
        "as much text as may be": {"x": "\u00e9" * (500 << 10)},
    }.items():
        artifact = sample(training=record)
        cases[name] = (artifact.manifest_bytes, artifact.tensor_bytes)
    for target, parts in ((TARGETS["artifact"], parts) for parts in cases.values()):
        assert feed(target, parts).code == "accepted"
    found: dict[str, tuple[str, Parts]] = {n: ("artifact", parts) for n, parts in cases.items()}
    text: dict[str, Any] = {"payload": "eHh4" * 16_000, "payloadType": "x", "signatures": []}
    signature = {"keyid": str(Digest.of(b"")), "sig": "eHh4" * 170}
    found["an envelope of 64 KiB"] = ("envelope", (canonical.encode(text),))
    text = {**text, "payload": "eHh4", "signatures": [signature] * 64}
    found["an envelope with 64 signatures"] = ("envelope", (canonical.encode(text),))
    return found


def documented() -> set[str]:
    """The codes that bytes alone can lead to, as docs/artifact-format.md lists them."""
    text = (ROOT / "docs" / "artifact-format.md").read_text()
    table = text[text.index("| code | when |") : text.index("Comparing with a base")]
    codes = set(re.findall(r"`((?:json|manifest|digest|tensor|artifact)\.[a-z_]+)`", table))
    of_files = {"missing", "extra_file", "link", "not_a_file"}
    return codes - {f"artifact.{kind}" for kind in of_files} - {"manifest.json"}
