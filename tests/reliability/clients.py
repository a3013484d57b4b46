"""Clients that use one registry at the same time, and somebody who kills and stops them.

A client says what it asks for before it asks, and what it was told after that, each with the time of the
machine's monotonic clock, which all processes share. If it is killed in between, nobody was told.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from foreword.artifact import Digest
from foreword.errors import ForewordError
from foreword.registry.references import ByVersion
from foreword.registry.registry import Registry
from foreword.registry.state import NameState, State
from tests.reliability.forked import FORKED
from tests.reliability.linearizability import Call
from tests.reliability.model import Answer, Done, Given, Operation, Refused, Seen
from tests.reliability.world import by, policy, signed

NAMES = ("acme/support", "acme/sales", "globex/help")

_VARIANTS = (0, 1)
_KINDS = {
    "publish": 10, "release": 18, "shift": 8, "rollback": 12, "revoke": 2,
    "resolve": 7, "resolve_version": 3, "show": 8,
}  # fmt: skip
"""What clients ask for, and how often."""
_SHARES = (0.1, 0.5, 1.0, 1.0)
_UNTOLD = ("storage.", "registry.busy")
"""A refusal with such a code leaves open whether it happened."""
_PATIENCE_SECONDS = 120

Asked = Call[Operation, Answer]


@dataclass(frozen=True)
class Plan:
    """How many clients ask how often, and what is done to them meanwhile."""

    seed: int
    clients: int
    operations: int
    """By each client."""
    kills: int
    pauses: int
    pause: float
    """Seconds for which a client is stopped."""


@dataclass
class History:
    """All that was asked and answered, by name."""

    calls: dict[str, list[Asked]] = field(default_factory=lambda: defaultdict(list))

    @property
    def asked(self) -> int:
        return sum(map(len, self.calls.values()))

    @property
    def unanswered(self) -> int:
        return sum(call.answer is None for calls in self.calls.values() for call in calls)


def gather(directory: Path, environment: dict[str, str], plan: Plan) -> History:
    """The history of one crowd of clients on the registry in a directory."""
    crowd = _Crowd(directory, environment, plan)
    try:
        crowd.run()
    finally:
        crowd.end()
    return crowd.history


@dataclass
class _Client:
    """A client as its parent sees it."""

    process: BaseProcess
    handle: int
    """A pidfd: unlike a number it never comes to mean another process."""
    hear: Connection
    left: int
    """How often it has still to ask."""
    asking: tuple[str, Operation, int] | None = None
    """What it asked, and when, and was not told yet."""

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just come to its end
            signal.pidfd_send_signal(self.handle, number)


class _Crowd:
    """The parent of the clients."""

    def __init__(self, directory: Path, environment: dict[str, str], plan: Plan) -> None:
        self.history = History()
        self._directory, self._environment, self._plan = directory, environment, plan
        self._rng = random.Random(f"nemesis {plan.seed}")
        self._deeds = self._plan_deeds()
        self._stopped: list[tuple[float, _Client]] = []
        """Whom to let go on, and when."""
        self._born = 0
        self._clients: dict[Connection, _Client] = {}
        for _ in range(plan.clients):
            self._start(plan.operations)

    def run(self) -> None:
        """Listen until every client has come to its end."""
        patience = time.monotonic() + _PATIENCE_SECONDS
        while self._clients:
            if time.monotonic() > patience:
                raise TimeoutError(f"the clients took more than {_PATIENCE_SECONDS} s")
            for ready in wait(list(self._clients), timeout=0.05):
                self._listen(self._clients[ready])
            self._wake()
            while self._deeds and self._clients and self.history.asked >= self._deeds[-1][0]:
                self._deeds.pop()[1](self._rng.choice(list(self._clients.values())))

    def end(self) -> None:
        """Only if something went wrong is there anybody left."""
        for client in self._clients.values():
            client.send(signal.SIGKILL)
            client.process.join()

    def _plan_deeds(self) -> list[tuple[int, Callable[[_Client], None]]]:
        """What to do after how many answers, the first at the end of the list."""
        plan = self._plan
        deeds = [self._kill] * plan.kills + [self._stop] * plan.pauses
        last = plan.clients * plan.operations * 3 // 4
        return sorted(((self._rng.randrange(last), deed) for deed in deeds), key=lambda d: -d[0])

    def _start(self, count: int) -> None:
        hear, tell = FORKED.Pipe(duplex=False)
        go, send = FORKED.Pipe(duplex=False)
        seed = f"{self._plan.seed} {self._born}"
        self._born += 1
        process = FORKED.Process(
            target=_work, args=(go, tell, self._directory, self._environment, seed, count)
        )
        process.start()
        tell.close()
        handle = os.pidfd_open(process.pid or 0)  # while it waits, and so is surely there
        with go, send:
            send.send("go")
        self._clients[hear] = _Client(process, handle, hear, count)

    def _kill(self, client: _Client) -> None:
        client.send(signal.SIGKILL)

    def _stop(self, client: _Client) -> None:
        client.send(signal.SIGSTOP)
        self._stopped.append((time.monotonic() + self._plan.pause, client))

    def _wake(self) -> None:
        now = time.monotonic()
        for _, client in [each for each in self._stopped if each[0] <= now]:
            if client.hear in self._clients:
                client.send(signal.SIGCONT)
        self._stopped = [each for each in self._stopped if each[0] > now]

    def _listen(self, client: _Client) -> None:
        try:
            said = client.hear.recv()
        except EOFError:
            self._bury(client)
            return
        if client.asking is None:
            client.asking = said
        else:
            self._write_down(client, *said)

    def _write_down(self, client: _Client, answer: Answer | None, ended: int | None) -> None:
        if client.asking:
            name, operation, began = client.asking
            self.history.calls[name].append(Call(operation, answer, began, ended))
            client.asking = None
            client.left -= 1

    def _bury(self, client: _Client) -> None:
        """A client came to its end; if that was not its own, another one takes over."""
        client.process.join()
        del self._clients[client.hear]
        client.hear.close()
        os.close(client.handle)
        self._write_down(client, None, None)
        if client.process.exitcode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"a client ended with {client.process.exitcode}")
        if client.left:
            self._start(client.left)


def _work(
    go: Connection,
    tell: Connection,
    directory: Path,
    environment: dict[str, str],
    seed: str,
    count: int,
) -> None:
    """A client: ask `count` times for something at random."""
    os.environ.update(environment)
    go.recv()
    rng = random.Random(seed)
    known: dict[str, _Knowledge] = defaultdict(_Knowledge)
    with Registry.open(directory) as registry:
        for _ in range(count):
            name = rng.choice(NAMES)
            operation = _draw(rng, known[name])
            tell.send((name, operation, time.monotonic_ns()))
            answer = ask(registry, name, operation)
            ended = time.monotonic_ns()
            is_told = not (isinstance(answer, Refused) and answer.code.startswith(_UNTOLD))
            tell.send((answer, ended) if is_told else (None, None))
            known[name].learn(operation, answer)


@dataclass
class _Knowledge:
    """What a client saw last of a name; others may have changed it since."""

    generation: int = 0
    newest: int = 0

    def learn(self, operation: Operation, answer: Answer) -> None:
        if isinstance(answer, Seen):
            self.generation, self.newest = answer.generation, answer.versions[-1][0]
        elif isinstance(answer, Done):
            self.generation = max(self.generation, answer.seq)
            self.newest = max(self.newest, operation.number)


def _draw(rng: random.Random, known: _Knowledge) -> Operation:
    """Something to ask for: mostly sensible, often too late."""
    kind: Any = rng.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
    if not known.newest and rng.random() < 0.8:
        kind = rng.choice(("publish", "show"))
    expect = known.generation if rng.random() < 0.5 else None
    share, newest = rng.choice(_SHARES), max(known.newest, 1)
    match kind:
        case "publish":
            number = max(1, known.newest + rng.choice((0, 1, 1, 1, 2)))
            return Operation(kind, number, rng.choice(_VARIANTS), expect=expect)
        case "release":
            number = max(1, newest - rng.choice((0, 0, 1, 2)))
            return Operation(kind, number, share=share, expect=expect)
        case "shift":
            return Operation(kind, share=share, expect=expect)
        case "rollback":
            return Operation(kind, rng.choice((0, 0, rng.randint(1, newest))), expect=expect)
        case "revoke":
            return Operation(kind, rng.randint(1, newest), expect=expect)
        case "resolve_version":
            return Operation(kind, rng.randint(1, newest))
        case _:
            return Operation(kind)


def ask(registry: Registry, name: str, operation: Operation) -> Answer:
    """Do an operation of the model on a real registry."""
    try:
        return _ask(registry, name, operation)
    except ForewordError as e:
        return Refused(e.code)


def _ask(registry: Registry, name: str, asked: Operation) -> Answer:
    version = ByVersion(name, version_of(asked.number))
    expect, share = asked.expect, asked.share
    match asked.kind:
        case "publish":
            given = signed(name, version.version, asked.variant)
            entry = registry.publish(
                given.manifest, given.tensors, (given.envelope,), policy=policy(), by=by(),
                expect=expect,
            )  # fmt: skip
        case "release":
            entry = registry.release(version, share, policy=policy(), by=by(), expect=expect)
        case "shift":
            entry = registry.shift(name, share, policy=policy(), by=by(), expect=expect)
        case "rollback":
            to = version if asked.number else None
            entry = registry.rollback(name, to=to, by=by(), expect=expect)
        case "revoke":
            entry = registry.revoke(version, by=by(), expect=expect)
        case "resolve":
            return _given(registry, name)
        case "resolve_version":
            return Given(_number(registry.resolve(version).version.version), None, 0.0)
        case "show":
            return _seen(registry.show(name), registry.state)
    return Done(entry.seq)


def version_of(number: int) -> str:
    return f"{number}.0.0"


def _number(version: str) -> int:
    return int(version.partition(".")[0])


def _given(registry: Registry, name: str) -> Given:
    found = registry.resolve(name)
    versions, release = registry.state.versions, found.release
    if release is None or release.stable != found.digest:
        raise ValueError(f"{name} stands for {found.digest}, its release is {release}")
    canary = _number(versions[release.canary].version) if release.canary else None
    return Given(_number(found.version.version), canary, release.share)


def _seen(name: NameState, state: State) -> Seen:
    numbers = {digest: _number(state.versions[digest].version) for digest in name.versions}
    release = name.release
    return Seen(
        generation=name.generation,
        versions=tuple((n, _variant(name.name, n, digest)) for digest, n in numbers.items()),
        revoked=frozenset(n for d, n in numbers.items() if state.versions[d].status == "revoked"),
        stable=numbers[release.stable] if release else None,
        canary=numbers[release.canary] if release and release.canary else None,
        share=release.share if release else 0.0,
    )


@cache
def _variant(name: str, number: int, digest: Digest) -> int:
    """Which of the variants has these bytes."""
    bytes_of = (Digest.of(signed(name, version_of(number), v).manifest) for v in _VARIANTS)
    return list(bytes_of).index(digest)
