"""What the tests of the prefix store share: a tiny base, some prefixes, a source, a clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from foreword.artifact import Artifact, Digest
from foreword.prefix.base_model import BaseModel
from tests.serving.prefix_samples import Clock, Source, artifact, close_stores
from tests.tiny import tiny_base


@pytest.fixture(scope="package")
def base() -> BaseModel:
    return tiny_base()


@pytest.fixture(scope="package")
def made(base: BaseModel) -> list[Artifact]:
    return [artifact(base, number) for number in range(8)]


@pytest.fixture
def source(made: list[Artifact]) -> Iterator[Source]:
    """Knows what was made; no store is left open on it."""
    source = Source()
    source.add(*made)
    yield source
    close_stores()


@pytest.fixture
def names(made: list[Artifact]) -> list[Digest]:
    return [each.digest for each in made]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs, hangs until this opens."""
    event = threading.Event()
    yield event
    event.set()
