"""Follows the journal: there is always a release table, and no request waits for it.

    watch (journal) ──────┐
    manifests (blobs) ────┼──▶ the follower's thread ──▶ table ──▶ requests
    the host's residents ─┘            └──▶ prefetch and forget, listeners, the known good file

What is known belongs to the follower's thread; the others bring it messages. While the database fails,
or tells something else than it told before, the last table stays and its age grows.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal

from foreword.artifact import Digest, PromptFormat
from foreword.errors import ForewordError
from foreword.registry.entries import GENESIS
from foreword.registry.registry import Registry
from foreword.registry.state import State
from foreword.serving.contract import PrefixHost
from foreword.serving.gateway.routing.followed import (
    Followed,
    ended,
    fitting,
    follow,
    moved,
    settle,
)
from foreword.serving.gateway.routing.hosting import Hosting
from foreword.serving.gateway.routing.keeper import Keeper
from foreword.serving.gateway.routing.known_good import KnownGood
from foreword.serving.gateway.routing.manifests import Manifests
from foreword.serving.gateway.routing.recent import Recent
from foreword.serving.gateway.routing.table import ReleaseTable, with_prompts
from foreword.serving.gateway.routing.warm import digests_of
from foreword.serving.gateway.routing.watch import Watch
from foreword.signing.times import moment
from foreword.telemetry.records import ReleaseSeen

Source = Literal["nothing", "known good", "journal"]

_WARMING_TICK, _IDLE_TICK = 0.02, 0.25
"""Seconds the follower's thread waits for a message, while releases wait and otherwise."""
_KEEP_EVERY = 60.0
"""Seconds after which the known good file is written again although no name changed."""


@dataclass(frozen=True)
class FollowStatus:
    """How well the journal is followed."""

    source: Source
    """Where the table is from."""
    seq: int
    age: float
    """As `Follower.age`."""
    error: str
    """Code of why it could not be read the last time; empty if it could."""
    detail: str
    unread: int
    """Released versions that cannot answer yet because their manifests were not read."""
    unkept: str
    """Why the known good file could not be read or written; empty if it could."""


def _nobody(_seen: ReleaseSeen) -> None:
    """Who listens if nobody does."""


class Follower:
    """A thread that keeps `table` up to date. Every property and method is safe from any thread.

    `registry` may be one whose database does not answer now. `base` is the fingerprint of the base that
    runs here, `host` what holds its prefixes, `known_good` a file that belongs to this process alone.
    `told` hears of each release that took effect after the first table.
    """

    def __init__(
        self,
        registry: Registry,
        base: Digest,
        *,
        host: PrefixHost | None = None,
        known_good: Path | None = None,
        told: Callable[[ReleaseSeen], None] = _nobody,
        interval: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._registry, self._base, self._told = registry, base, told
        self._hosting = Hosting(host)
        self._clock, self._now = clock, now
        self._known = Followed()
        self._source: Source = "nothing"
        self._read_at = float("-inf")
        self._error: ForewordError | None = None
        self._unkept = ""
        self._leaning = self._checked = GENESIS
        self._has_schema = False
        self._unread: set[Digest] = set()
        self._fresh: dict[Digest, PromptFormat] = {}
        self._hearsay: frozenset[Digest] = frozenset()
        """Whose prompts are from the known good file: good enough until their manifests are read."""
        self._keep_from = float("inf")
        self._recent = Recent()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._begun, self._complete, self._stopping = (threading.Event() for _ in range(3))
        self._manifests = Manifests(registry.blobs, partial(self._send, self._take_prompt))
        self._keeper = Keeper(known_good) if known_good else None
        self._watch = Watch(
            self._look, partial(self._send, self._take_state),
            partial(self._send, self._take_error), interval, clock,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run, name="foreword-releases", daemon=True)

    def start(self, patience: float = 5.0) -> None:
        """Begin; comes back as soon as what is released can answer, or after `patience` seconds."""
        end = self._clock() + patience
        self._manifests.start()
        if self._keeper:
            self._keeper.start()
        self._thread.start()
        self._watch.start()
        if not self._begun.wait(patience / 2):
            self._send(self._take_known_good)
        self._complete.wait(max(0.0, end - self._clock()))

    def stop(self, patience: float = 2.0) -> None:
        """End all threads; one that hangs on database, store or disk is left to itself."""
        self._watch.stop(patience)
        self._manifests.stop(patience)
        self._stopping.set()
        self._send(self._keep)
        self._thread.join(patience)
        if self._keeper:
            self._keeper.stop(patience)

    @property
    def table(self) -> ReleaseTable:
        return self._known.table

    @property
    def age(self) -> float:
        """Seconds since the journal was last read well; infinite if it never was."""
        return self._clock() - self._read_at

    @property
    def status(self) -> FollowStatus:
        error, keeper = self._error, self._keeper
        return FollowStatus(
            source=self._source,
            seq=self.table.seq,
            age=self.age,
            error=error.code if error else "",
            detail=str(error) if error else "",
            unread=len(self._unread),
            unkept=self._unkept or (keeper.problem if keeper else ""),
        )

    def used(self, digest: Digest) -> None:
        """A request is routed to this version."""
        self._recent.note(digest)

    def unread(self, digest: Digest) -> None:
        """A request wants a version whose manifest is missing; it is read next."""
        self._manifests.ask([digest], first=True)

    # On the watch's thread.

    def _look(self) -> State:
        if not self._has_schema:
            self._registry.database.check()
            self._has_schema = True
        leaning = self._leaning
        state = self._registry.refresh()
        if leaning != GENESIS:
            next(self._registry.journal.read(leaning), None)  # what was served must be in it
        self._checked = leaning
        return state

    # On the follower's thread.

    def _send(self, work: Callable[..., None], *arguments: object) -> None:
        self._inbox.put(partial(work, *arguments))

    def _run(self) -> None:
        while not self._stopping.is_set():
            for message in self._messages():
                self._do(message)
            self._do(self._settle)
        for message in self._messages():
            self._do(message)

    def _do(self, message: Callable[[], None]) -> None:
        try:
            message()
        except Exception as e:  # a bug must not end the thread that every release comes through
            text = f"following the journal failed with {type(e).__name__} {str(e)[:200]!r}"
            self._error = ForewordError(text, code="bug")

    def _messages(self) -> Iterator[Callable[[], None]]:
        """All there are; waits for the first one."""
        tick = _WARMING_TICK if self._known.held else _IDLE_TICK
        with suppress(queue.Empty):
            yield self._inbox.get(timeout=tick)
            while True:
                yield self._inbox.get_nowait()

    def _take_state(self, state: State, read_at: float) -> None:
        if self._checked != self._leaning:
            return  # it was read before the known good table was taken; the next one is compared with it
        self._error, self._read_at, self._leaning = None, read_at, GENESIS
        if self._source != "journal":
            self._take_first(state)
        elif state is not self._known.state:
            self._take_next(state)

    def _take_first(self, state: State) -> None:
        kept = self._remembered() if self._source == "nothing" else None
        if kept:  # the store may be away, and what is on our own disk needs its prompt
            self._known = Followed(table=ReleaseTable(prompts=kept.table.prompts))
            self._hearsay = frozenset(kept.table.prompts)
        before = self._known.table
        self._known, names = follow(self._known, state, self._base, self._is_warm(), self._clock())
        self._source = "journal"
        self._after(before, names)
        if kept:
            self._recent.remember(kept.recent)
        self._hosting.prefetch(fitting(self.table, self._recent.latest(), self._base))
        self._hosting.forget(d for d in self._recent.latest() if not self.table.serves(d))
        self._begun.set()

    def _take_next(self, state: State) -> None:
        before, is_warm = self._known.table, self._is_warm()
        self._known, names = follow(self._known, state, self._base, is_warm, self._clock())
        self._after(before, names)
        released = self._released(names)
        self._hosting.prefetch(digest for digest in released if not is_warm(digest))
        self._tell(moved(before, self.table, names))

    def _take_error(self, error: ForewordError) -> None:
        self._error = error
        self._take_known_good()

    def _take_known_good(self) -> None:
        """Serve what the last process knew, if the journal was never read here."""
        if self._source != "nothing":
            return
        kept = self._remembered()
        if kept:
            self._source = "known good"
            self._leaning = kept.table.head
            age = (self._now() - kept.read).total_seconds()
            self._read_at = self._clock() - max(0.0, age)
            self._known = Followed(table=kept.table)
            self._recent.remember(kept.recent)
            self._read_prompts(kept.table.names)
            self._hosting.prefetch(fitting(kept.table, kept.recent, self._base))
        self._begun.set()
        self._note_complete()

    def _take_prompt(self, digest: Digest, prompt: PromptFormat) -> None:
        self._fresh[digest] = prompt
        self._unread.discard(digest)

    def _settle(self) -> None:
        """After each round of messages: what they lead to together, and what time leads to."""
        self._add_prompts()
        if self._known.held:
            before = self._known.table
            waited = list(self._known.held)
            self._known = settle(self._known, self._is_warm(), self._clock())
            self._tell(moved(before, self.table, waited))
        self._hosting.catch_up()
        self._note_complete()
        if self._clock() >= self._keep_from:
            self._keep()

    # Parts of the above.

    def _after(self, before: ReleaseTable, names: list[str]) -> None:
        self._hosting.forget(ended(before, self.table, names))
        self._read_prompts(names)
        self._keep_from = self._clock()

    def _read_prompts(self, names: Iterable[str]) -> None:
        """Have the manifests of these names read, those that serve first."""
        names = list(names)
        self._manifests.know(self.table.prompts.keys() - self._hearsay)
        released = self._released(names)
        self._unread.update(digest for digest in released if digest not in self.table.prompts)
        self._manifests.ask(released, first=True)
        versions = (d for name in names for d in self.table.names[name].versions.values())
        self._manifests.ask(fitting(self.table, versions, self._base))

    def _released(self, names: Iterable[str]) -> list[Digest]:
        """Versions for this base that these names release, also those that wait for it."""
        state, names = self._known.state, list(names)
        found = [digests_of(self.table.names[name].release) for name in names]
        found += [digests_of(state.names[name].release) for name in names if name in state.names]
        return fitting(self.table, frozenset().union(*found), self._base)

    def _add_prompts(self) -> None:
        if self._fresh:
            fresh, self._fresh = self._fresh, {}
            self._known = replace(self._known, table=with_prompts(self._known.table, fresh))
            self._keep_from = min(self._keep_from, self._clock())

    def _note_complete(self) -> None:
        if self._begun.is_set() and not self._unread:
            self._complete.set()

    def _is_warm(self) -> Callable[[Digest], bool]:
        """Whether a request for a version would find it resident, as of now."""
        prompts, resident = self._known.table.prompts, self._hosting.resident()
        return lambda digest: digest in prompts and (resident is None or digest in resident)

    def _tell(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(Exception):  # whoever listens must not stop what everybody waits for
                self._told(self._seen(name))

    def _seen(self, name: str) -> ReleaseSeen:
        now, release = self._now(), self.table.names[name].release
        changed = self._known.state.names[name].changed
        return ReleaseSeen(
            time=now.timestamp(),
            name=name,
            seq=self.table.seq,
            stable=str(release.stable) if release else "",
            canary=str(release.canary) if release and release.canary else "",
            share=release.share if release else 0.0,
            delay=max(0.0, (now - moment(changed.time)).total_seconds()) if changed else 0.0,
        )

    def _keep(self) -> None:
        """Write down what is known from the journal; what is only remembered is written already."""
        self._keep_from = self._clock() + _KEEP_EVERY
        if self._keeper and self._source == "journal":
            read = self._now() - timedelta(seconds=self.age)
            self._keeper.keep(KnownGood(self.table, read, self._recent.latest()))

    def _remembered(self) -> KnownGood | None:
        if self._keeper is None:
            return None
        try:
            return self._keeper.read()
        except ForewordError as e:
            self._unkept = str(e)
            return None
