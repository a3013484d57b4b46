"""R12: somebody changes the files while they are read; what is parsed is what was signed, or nothing.

A second process swaps, cuts, renames and links the files of a directory without a pause. Each load either
is refused with a typed error, or gives an artifact whose very bytes were signed. 2,000 loads in
`make test`; with FOREWORD_LONG=1 10,000.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from foreword.artifact import Artifact, Digest, tensors
from foreword.artifact.package import ENVELOPES, MANIFEST, TENSORS
from foreword.errors import ArtifactError, StorageError, TrustError
from foreword.signing import store
from tests.artifact.samples import SPECS, numbers, sample
from tests.signing.made import NOW, key, policy, signed

LOADS = 10_000 if os.environ.get("FOREWORD_LONG") else 2_000
NAMES = (MANIFEST, TENSORS, ENVELOPES)


Files = dict[str, bytes]


def keep_swapping(target: Path, sources: list[Files], begun: Event, stop: Event) -> None:
    """Do one thing after another to the target's files until told to stop."""
    chance = random.Random(12)
    begun.set()
    while not stop.is_set():
        source, name = chance.choice(sources), chance.choice(NAMES)
        with contextlib.suppress(OSError):
            match chance.randrange(12):
                case 0:
                    rename(source[name], target / name)
                case 1:  # in place, while it may be open
                    (target / name).write_bytes(source[name])
                case 2:
                    os.truncate(target / name, chance.randrange(len(source[name])))
                case 3:
                    link(source[name], target / name, os.symlink)
                case 4:
                    link(source[name], target / name, os.link)
                case 5:
                    with (target / name).open("r+b") as file:
                        file.seek(chance.randrange(len(source[name])))
                        file.write(b"\x01")
                case _:  # all three, one by one; then a moment in which they fit
                    for each in NAMES:
                        rename(source[each], target / each)
                    time.sleep(0.002)


def rename(data: bytes, path: Path) -> None:
    draft = path.parent.with_name("draft")
    draft.write_bytes(data)
    os.replace(draft, path)


def link(data: bytes, path: Path, how: Callable[[Path, Path], None]) -> None:
    away = path.parent.with_name("away")
    away.unlink(missing_ok=True)
    away.write_bytes(data)
    path.unlink(missing_ok=True)
    how(away, path)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Digest]:
    """Digests of every buffer the tensor parser is given."""
    seen: list[Digest] = []
    parse = tensors.parse

    def parse_watched(buffer: bytes, *given: Any, **named: Any) -> Any:
        seen.append(Digest.of(buffer))
        return parse(buffer, *given, **named)

    monkeypatch.setattr(tensors, "parse", parse_watched)
    return seen


def files(artifact: Artifact, envelope: bytes) -> Files:
    return {
        MANIFEST: artifact.manifest_bytes,
        TENSORS: artifact.tensor_bytes,
        ENVELOPES: envelope + b"\n",
    }


def test_what_is_parsed_was_signed(tmp_path: Path, watched: list[Digest]) -> None:
    one = sample(tensors={spec.name: numbers(spec, 1.0) for spec in SPECS})
    two = sample(version="1.2.4", tensors={spec.name: numbers(spec, 2.0) for spec in SPECS})
    evil = sample(version="1.2.5", tensors={spec.name: numbers(spec, 6.0) for spec in SPECS})
    me = key("me")
    sources = [
        files(one, signed(one, me)),
        files(two, signed(two, me)),
        files(evil, signed(evil, key("mallory"))),
    ]
    target = tmp_path / "target"
    target.mkdir()
    for name, data in sources[0].items():
        (target / name).write_bytes(data)
    watched.clear()  # making them parsed them

    context = multiprocessing.get_context("spawn")
    begun, stop = context.Event(), context.Event()
    other = context.Process(target=keep_swapping, args=(target, sources, begun, stop))
    other.start()
    try:
        assert begun.wait(60)
        outcomes = _load(target, (one, two), watched)
    finally:
        stop.set()
        other.join(30)
    assert other.exitcode == 0
    assert outcomes.total() == LOADS
    # Otherwise nothing was shown: both artifacts came through, and so did unsigned bytes and mixtures.
    for outcome in ("1.2.3", "1.2.4", "trust.unknown_key", "trust.subject"):
        assert outcomes[outcome] >= 5, outcomes


def _load(target: Path, honest: tuple[Artifact, ...], parsed: list[Digest]) -> Counter[str]:
    trusting = policy(key("me"))
    by_digest = {artifact.digest: artifact for artifact in honest}
    good_tensors = {artifact.manifest.tensors.sha256 for artifact in honest}
    outcomes: Counter[str] = Counter()
    for _ in range(LOADS):
        try:
            verified = store.open_verified(target, trusting, NOW)
        except (ArtifactError, TrustError, StorageError) as e:
            outcomes[e.code] += 1
        else:
            assert verified.artifact == by_digest[verified.digest]
            outcomes[verified.artifact.manifest.version] += 1
        assert set(parsed) <= good_tensors, "unsigned bytes reached the parser"
        parsed.clear()
    return outcomes
