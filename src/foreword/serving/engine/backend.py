"""The engine behind the contract: a thread that steps, and an asynchronous stream per request.

Whatever is asked of the engine, on any thread, waits in one row for the engine's thread. So what was
forgotten before a request came is forgotten for that request.

A second thread looks whether the first one still steps. If it does not, every stream is told: a step
that hangs must not make its clients hang.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

from foreword.artifact import Digest
from foreword.errors import EngineFailed, ForewordError, Overloaded
from foreword.serving.contract import (
    AdapterSet,
    Capacity,
    Chunk,
    GenerateRequest,
    Health,
    ResidentPrefix,
)  # fmt: skip
from foreword.serving.engine.engine import Engine, Event, Failure
from foreword.serving.engine.mail import Box, send

_log = logging.getLogger(__name__)
_BEAT = 0.5
"""Seconds an idle engine sleeps before it beats again."""
_LOADING = 0.005
"""Seconds between two looks at what is being loaded while nothing runs."""
_LOOK = 0.1
"""Seconds that whoever asks what is resident waits for the engine's thread."""
_LAST_STEP = 5.0
"""Seconds a closing engine may take for the step it is in."""
_WEDGED = "engine.wedged"
_LOOKS = 20
"""How often it is looked after the engine in the time after which it is wedged."""
_Item = Chunk | ForewordError


class EmbeddedBackend:
    """`Backend` and `PrefixHost` over one engine, which it owns: only its thread touches the engine.

    backend = EmbeddedBackend(engine)
    async for chunk in backend.generate(request): ...
    await backend.drain(30)
    """

    def __init__(
        self,
        engine: Engine,
        *,
        wedged_after: float = 25.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wedged_after`: seconds without a finished step after which `health` and all streams say so."""
        self._engine = engine
        self._clock = clock
        self._wedged_after = wedged_after
        self._wake = threading.Condition()
        self._calls: deque[Callable[[], None]] = deque()
        self._streams: dict[str, Box[_Item]] = {}
        """Of requests that the engine has."""
        self._listening: set[Box[_Item]] = set()
        """Of all requests, also those that still wait for the engine's thread."""
        self._state: Literal["ready", "draining", "failed", "closed"] = "ready"
        self._over = False
        """Nothing that is called runs any more."""
        self._began = clock()
        self._last_step: float | None = None
        self._detail = ""
        self._cut_off = 0
        """Streams that the end of the engine ended."""
        self._capacity = engine.capacity()
        self._residents: tuple[ResidentPrefix, ...] = ()
        self._thread = threading.Thread(target=self._loop, name="foreword-engine", daemon=True)
        self._thread.start()
        self._ended_now = threading.Event()
        threading.Thread(target=self._watch, name="foreword-engine-watch", daemon=True).start()

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Chunks of all `n` answers as they come; a consumer that goes away cancels the request.

        Raises:
            ServingError, UsageError: as `Engine.submit` and the engine's failures say.
        """
        if self._state != "ready":
            raise self._refusal()
        if self._stuck_for() > self._wedged_after:
            raise self._wedged()
        if request.constraint is not None:
            await asyncio.to_thread(self._engine.prepare, request)
        box = Box(asyncio.get_running_loop(), asyncio.Queue[_Item]())
        self._listening.add(box)
        left = request.n
        try:
            if not self._call(lambda: self._submit(request, box)):
                left = 0
                raise self._refusal()
            while left:
                item = await box.items.get()
                if isinstance(item, ForewordError):
                    # Only a wedged engine has a request that failed: it is given up if it ever steps again.
                    left = left if item.code == _WEDGED else 0
                    raise item
                left -= item.finish is not None
                yield item
        finally:
            self._listening.discard(box)
            if left:
                self.cancel(request.id)

    def cancel(self, request_id: str) -> None:
        self._tell(lambda: self._engine.cancel(request_id))

    def capacity(self) -> Capacity:
        """As of the last finished step."""
        return self._capacity

    def health(self) -> Health:
        state: Literal["ready", "draining", "wedged", "failed"]
        if self._ended:
            state = "failed"
        elif self._stuck_for() > self._wedged_after:
            state = "wedged"
        else:
            state = "draining" if self._state == "draining" else "ready"
        return Health(state, self._last_step, self._detail)

    def prefetch(self, digests: Sequence[Digest]) -> None:
        wanted = tuple(digests)
        self._tell(lambda: self._engine.prefetch(wanted, self._clock()))

    def forget(self, digests: Sequence[Digest]) -> None:
        unwanted = tuple(digests)
        self._tell(lambda: self._forget(unwanted))

    def forget_tenant(self, tenant: str) -> None:
        self._tell(lambda: self._engine.forget_tenant(tenant))

    def residents(self) -> tuple[ResidentPrefix, ...]:
        """As of now, or of the last look if the engine is in a long step."""
        looked = threading.Event()
        if not self._call(lambda: self._look(looked)):
            return ()
        looked.wait(_LOOK)
        return self._residents

    async def drain(self, timeout: float) -> bool:
        """Take nothing new and let what runs finish; True if all did within `timeout` seconds.

        What is left then fails with `Cancelled`.
        """
        if self._state == "ready":
            self._state = "draining"
        until = self._clock() + timeout
        while self._streams and self._thread.is_alive() and self._clock() < until:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(self.close)
        return not self._cut_off

    def close(self) -> None:
        """Stop the thread; what is left fails with `Cancelled`. Safe to call again.

        A step that does not end cannot be stopped. Its thread is left behind, and what is left
        fails with `EngineFailed`.
        """
        self._call(self._stop)
        self._thread.join(_LAST_STEP)
        if self._thread.is_alive():
            self._cut("its last step did not end")
        self._ended_now.set()

    # On the engine's thread.

    def _loop(self) -> None:
        try:
            while not self._ended:
                self._wait()
                self._step()
        except BaseException as error:
            # A step raised what no barrier held: say so to everybody instead of going silent.
            _log.critical("the engine stopped", exc_info=error)
            self._cut(f"{type(error).__name__}: {error}"[:200])
        with self._wake:
            self._over = True
        self._run_calls()

    def _run_calls(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _step(self) -> None:
        self._run_calls()
        if not self._ended:
            events = self._engine.step(self._clock())
            # First: who hears of an end may ask at once what has become free.
            self._capacity = self._engine.capacity()
            self._deliver(events)
        self._last_step = self._clock()

    def _wait(self) -> None:
        """Sleep while there is nothing to do, and briefly while requests wait for their prefixes."""
        running = self._capacity.running
        with self._wake:
            if not self._calls and not running:
                soon = self._engine.busy or self._engine.loading
                self._wake.wait(_LOADING if soon else _BEAT)

    def _submit(self, request: GenerateRequest, box: Box[_Item]) -> None:
        if self._ended:
            send([(box, self._refusal())])
            return
        try:
            self._engine.submit(request, self._clock())
        except ForewordError as error:
            send([(box, error)])
        except Exception as error:
            _log.error("request %r could not be taken in", request.id, exc_info=error)
            said = f"the request could not be taken in ({type(error).__name__})"
            send([(box, EngineFailed(said))])
        else:
            self._streams[request.id] = box

    def _forget(self, digests: Sequence[Digest]) -> None:
        for digest in digests:
            self._engine.forget(AdapterSet(digest), self._clock())

    def _look(self, looked: threading.Event) -> None:
        self._residents = tuple(self._engine.residents())
        looked.set()

    def _deliver(self, events: Sequence[Event]) -> None:
        send(
            (box, event.error if isinstance(event, Failure) else event)
            for event in events
            if (box := self._streams.get(event.id)) is not None
        )
        # Only now: several answers of a request may have come to their end in the same step.
        for name in {event.id for event in events}:
            if not self._engine.knows(name):
                self._streams.pop(name, None)

    def _stop(self) -> None:
        if self._ended:
            return
        self._cut_off = len(self._streams)
        self._engine.close()
        self._deliver(self._engine.step(self._clock()))
        self._state = "closed"

    # On any thread.

    @property
    def _ended(self) -> bool:
        return self._state in ("failed", "closed")

    def _refusal(self) -> ForewordError:
        if self._state == "failed":
            return EngineFailed(f"the engine stopped ({self._detail}); ask another one")
        return Overloaded(
            "this engine takes no new requests; ask another one", code="serving.draining"
        )

    def _cut(self, detail: str) -> None:
        """The engine answers nobody any more: tell every stream."""
        self._state, self._detail = "failed", detail
        self._streams = {}
        self._cut_off = self._tell_all(
            EngineFailed("the engine stopped; ask another one", retry_after=1.0)
        )

    def _watch(self) -> None:
        """A thread's life: see whether the engine's still steps."""
        while not self._ended_now.wait(self._wedged_after / _LOOKS):
            if self._ended:
                return
            if self._stuck_for() > self._wedged_after:
                self._tell_all(self._wedged())

    def _stuck_for(self) -> float:
        """Seconds since a step was finished."""
        since = self._began if self._last_step is None else self._last_step
        return self._clock() - since

    def _wedged(self) -> EngineFailed:
        return EngineFailed(
            f"the engine has not finished a step for {self._stuck_for():.0f} s; ask another one",
            code=_WEDGED,
            retry_after=1.0,
        )

    def _tell_all(self, error: EngineFailed) -> int:
        """Give an error to every stream there is; how many there are."""
        listening = self._listening.copy()
        send((box, error) for box in listening)
        return len(listening)

    def _tell(self, call: Callable[[], None]) -> None:
        """Have something done to the engine; one that has ended has nothing to cancel or to forget."""
        self._call(lambda: None if self._ended else call())

    def _call(self, call: Callable[[], None]) -> bool:
        """Have the engine's thread do something; False if it does nothing any more."""
        with self._wake:
            if not self._over:
                self._calls.append(call)
                self._wake.notify()
            return not self._over
