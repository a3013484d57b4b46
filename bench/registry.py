"""Trust and keep, in figures: verify, publish, resolve and list, each beside a peer in the same run.

Verifying a 5 MB artifact (signature, policy, digests, strict parse) beside OpenSSF model-signing on the
same bytes and beside nothing but sha256. Publishing beside writing and syncing the same bytes plainly.
Resolving a name and listing a page among 10,000 versions of 1,000 prefixes beside MLflow's model
registry of the same size on SQLite. The peers get an environment of their own under `bench/.peers`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import harness
import numpy as np

from foreword.artifact import (
    Artifact,
    BaseRef,
    Digest,
    Geometry,
    LayerGeometry,
    PromptFormat,
    Site,
    pack,
    write_artifact,
)
from foreword.artifact.tensors import expected_tensors
from foreword.registry.entries import By, Published, Released
from foreword.registry.facts import Base, facts_of
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from foreword.signing.envelope import sign
from foreword.signing.keys import SigningKey, new_key
from foreword.signing.policy import TrustedKey, TrustPolicy
from foreword.signing.statement import Statement
from foreword.signing.verify import verify

PEERS = (
    "model-signing==1.1.1",
    "pyopenssl==26.4.0",
    "mlflow-skinny==3.17.2",
    "sqlalchemy",
    "alembic",
)
GEOMETRY = Geometry({Site.DECODER: {i: LayerGeometry(3, 64, 64) for i in range(30)}})
"""SmolLM2-135M: 46,080 bytes for each virtual token in float32."""
BASE = Base(BaseRef("demo", Digest.of(b"weights"), Digest.of(b"words"), "llama", 8192), GEOMETRY)
Times = list[float]


def make(length: int, version: str, seed: int) -> Artifact:
    """An artifact of random numbers with `length` virtual tokens."""
    draw = np.random.default_rng(seed)
    numbers = {
        spec.name: draw.standard_normal(spec.nbytes // 4, dtype=np.float32).tobytes()
        for spec in expected_tensors(GEOMETRY, length, "float32")
    }
    return pack(
        name="acme/support", version=version, created="2026-01-31T12:00:00Z", base=BASE.ref,
        geometry=GEOMETRY, length=length, dtype="float32",
        prompt=PromptFormat("template", "{input}\n"), training={}, probes=(), tensors=numbers,
    )  # fmt: skip


def signed(artifact: Artifact, key: SigningKey) -> bytes:
    return sign(Statement.about(artifact, now()).to_bytes(), key).to_bytes()


def now() -> datetime:
    return datetime.now(UTC)


class Peers:
    """The other process; `do` answers with the seconds it took there."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(_peer_python()), str(Path(__file__).with_name("registry_peers.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )  # fmt: skip

    def do(self, what: str, *arguments: object, **more: object) -> float:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the peers have no pipes")
        request = {"do": what, "with": arguments, **more}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peers ended during {what}")
        return float(line)

    def close(self) -> None:
        self._process.communicate()


def _peer_python() -> Path:
    """The Python of the peers' environment, which is made on first use."""
    home = Path(__file__).with_name(".peers")
    python = home / "bin" / "python"
    ready = home / "ready"
    if not ready.exists() or ready.read_text() != " ".join(PEERS):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PEERS], check=True)
        ready.write_text(" ".join(PEERS))
    return python


def timed(work: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def measure_verify(scratch: Path, key: SigningKey, peers: Peers, rounds: int) -> dict[str, Times]:
    artifact = make(109, "1.0.0", seed=0)
    write_artifact(artifact, scratch / "peer" / "model")
    peers.do("sign", directory=str(scratch / "peer"))
    envelope, policy = signed(artifact, key), trusting(key)
    manifest, tensors = artifact.manifest_bytes, artifact.tensor_bytes

    def ours() -> None:
        verify(manifest, tensors, (envelope,), policy, now())

    def plain() -> None:
        Digest.of(manifest)
        Digest.of(tensors)

    return alternated({"foreword": lambda: timed(ours), "model_signing": lambda: peers.do("verify"),
                       "sha256_alone": lambda: timed(plain)}, rounds)  # fmt: skip


def measure_publish(scratch: Path, key: SigningKey, rounds: int) -> dict[str, Times]:
    init(Layout(scratch / "publishing"))
    by, policy = By("bench", now()), trusting(key)
    versions = [make(16, f"1.0.{i}", seed=i) for i in range(rounds + 1)]
    envelopes = [signed(artifact, key) for artifact in versions]
    plain = scratch / "plain"
    plain.mkdir()
    with Registry.open(scratch / "publishing") as registry:
        registry.declare_base(BASE, by=by)

        def publish(i: int) -> float:
            a = versions[i]
            return timed(
                lambda: registry.publish(
                    a.manifest_bytes, a.tensor_bytes, (envelopes[i],), policy=policy, by=by
                )
            )

        def write(i: int) -> float:
            return timed(lambda: _write_synced(plain, i, versions[i], envelopes[i]))

        taken: dict[str, Times] = {"foreword": [], "files_written_and_synced": []}
        for i in range(rounds + 1):
            ours, theirs = publish(i), write(i)
            if i:  # the first one warms up
                taken["foreword"].append(ours)
                taken["files_written_and_synced"].append(theirs)
    return taken


def _write_synced(directory: Path, i: int, artifact: Artifact, envelope: bytes) -> None:
    parts = (artifact.manifest_bytes, artifact.tensor_bytes, envelope)
    for part, data in enumerate(parts):
        with (directory / f"{i}-{part}").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def fill(directory: Path, prefixes: int, versions: int) -> None:
    """A journal as if each version had been published and the newest of each name released."""
    by, facts = By("bench", now()), facts_of(make(1, "1.0.0", seed=0).manifest, Digest.of(b""))
    with Registry.open(directory) as registry:
        head = registry.declare_base(BASE, by=by).head
        for prefix in range(prefixes):
            name = f"tenant-{prefix:04}/support"
            for number in range(versions):
                version = f"1.{number}.0"
                digest = Digest.of(f"{name} {version}".encode())
                made = replace(facts, name=name, version=version, digest=digest)
                head = registry.journal.append(head, Published(made, ()), by).head
            head = registry.journal.append(head, Released(name, digest, 1.0), by).head


def measure_lookups(
    scratch: Path, peers: Peers, prefixes: int, versions: int, rounds: int
) -> dict[str, dict[str, Times]]:
    directory = scratch / "looking"
    init(Layout(directory))
    print(
        f"filling both with {prefixes * versions:,} versions of {prefixes:,} prefixes", flush=True
    )
    fill(directory, prefixes, versions)
    (scratch / "mlflow").mkdir()
    peers.do("fill", directory=str(scratch / "mlflow"), prefixes=prefixes, versions=versions)
    draw = random.Random(0)

    def opened() -> None:
        with Registry.open(directory) as fresh:
            fresh.refresh()

    with Registry.open(directory) as registry:
        registry.refresh()

        def resolve(index: int) -> None:
            registry.resolve(f"tenant-{index:04}/support")

        def of_one(mine: Callable[[int], object], theirs: str) -> dict[str, Callable[[], float]]:
            picks = iter([draw.randrange(prefixes) for _ in range(2 * rounds + 2)])
            return {
                "foreword": lambda: timed(mine, next(picks)),
                "mlflow": lambda: peers.do(theirs, next(picks)),
            }

        return {
            "resolve": alternated(of_one(resolve, "resolve"), rounds),
            "page": alternated(
                {"foreword": lambda: timed(registry.list),
                 "mlflow": lambda: peers.do("page")}, max(20, rounds // 10),
            ),
            "open": alternated({"foreword": lambda: timed(opened)}, 5),
        }  # fmt: skip


def alternated(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Times]:
    """Seconds of each side, the sides taking turns; one warm-up round is not counted."""
    for side in sides.values():
        side()
    taken: dict[str, Times] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            taken[name].append(side())
    return taken


def trusting(key: SigningKey) -> TrustPolicy:
    return TrustPolicy(keys={key.public.id: TrustedKey(key.public, key.name)})


def quantile(times: Sequence[float], part: float) -> float:
    """Milliseconds that this part of all calls took at the most."""
    ordered = sorted(times)
    return 1e3 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def measure(quick: bool) -> harness.Result:
    prefixes, versions, rounds = (100, 10, 200) if quick else (1_000, 10, 2_000)
    peers = Peers()
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        os.environ["FOREWORD_HOME"] = str(scratch / "home")
        key = new_key("bench")
        times = {
            "verify_5_mb": measure_verify(scratch, key, peers, 50 if quick else 300),
            "publish_0.7_mb": measure_publish(scratch, key, 20 if quick else 200),
            **measure_lookups(scratch, peers, prefixes, versions, rounds),
        }
        peers.close()
    figures = {
        what: {
            side: {"p50_ms": quantile(taken, 0.5), "p99_ms": quantile(taken, 0.99), "n": len(taken)}
            for side, taken in sides.items()
        }
        for what, sides in times.items()
    }
    return harness.Result(
        _claims(times),
        {"versions": prefixes * versions, "prefixes": prefixes, "milliseconds": figures},
    )


def _claims(times: Mapping[str, Mapping[str, Times]]) -> list[harness.Claim]:
    def at(what: str, part: float) -> float:
        return quantile(times[what]["foreword"], part)

    def ratio(what: str, peer: str) -> float:
        return harness.median_ratio(times[what][peer], times[what]["foreword"])

    claim: Callable[..., Any] = harness.Claim
    return [
        claim("verify 5 MB, p50", at("verify_5_mb", 0.5), 20, "lower", "ms"),
        claim("verify 5 MB, p99", at("verify_5_mb", 0.99), 20, "lower", "ms"),
        claim(
            "verify against model-signing", ratio("verify_5_mb", "model_signing"), 1, "higher", "x"
        ),
        claim("resolve a name, p99", at("resolve", 0.99), 2, "lower", "ms"),
        claim("resolve against MLflow", ratio("resolve", "mlflow"), 1, "higher", "x"),
        claim("list a page of 100, p99", at("page", 0.99), 50, "lower", "ms"),
        claim("list a page against MLflow", ratio("page", "mlflow"), 1, "higher", "x"),
    ]


if __name__ == "__main__":
    harness.main(measure)
