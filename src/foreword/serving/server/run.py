"""`foreword serve`: one process with everything in it, or one half of that.

all      keys ─ gateway ─ engine        whole.py
gateway  keys ─ gateway ─▶ HTTP         gateway_alone.py     no torch, no weights
engine            HTTP ─▶ engine        engine_alone.py      no keys, no tenants
"""

from __future__ import annotations

from foreword.serving.server.arena import share_one_arena
from foreword.serving.server.place import own_place
from foreword.serving.server.process import Say
from foreword.serving.server.settings import ServeSettings, check


def run(settings: ServeSettings, say: Say) -> None:
    """Serve until the process is told to stop. `say` is given lines for whoever started it.

    Raises:
        ConfigError: settings do not go together, an address is taken, there is no key.
        NotFound, TrustError: there is no registry or no trust policy; the message says how to make one.
        CompatibilityError: the base cannot be loaded or served, or is not the engine's.
        EngineFailed: a gateway's engine does not answer.
        StorageError: the disk refused.
    """
    check(settings)
    share_one_arena()
    with own_place(settings.port) as place:
        if settings.role == "gateway":
            from foreword.serving.server.gateway_alone import run_gateway

            run_gateway(settings, place, say)
        elif settings.role == "engine":
            from foreword.serving.server.engine_alone import run_engine

            run_engine(settings, place, say)
        else:
            from foreword.serving.server.whole import run_whole

            run_whole(settings, place, say)
