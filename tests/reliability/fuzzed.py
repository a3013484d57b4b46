"""Schemathesis over an application's own OpenAPI document: every phase, every operation, valid and not.

Its own checks hold, but for four things that a description cannot say:
- a request can be well-formed and still ask for what does not go together, or does not fit the model.
  So instead of `positive_data_acceptance`, every refusal of a well-formed request needs a code from `CROSS`;
- a body that breaks a limit of size may be refused as too large (413) before anybody looks closer;
- 503 and 504 are declared, and no fault;
- a key that was revoked is still there to be looked at.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.hooks import unregister
from schemathesis.schemas import BaseSchema

PHASES = ("examples", "coverage", "fuzzing", "stateful")
Alive = Callable[[], bool]
_CROSS = (
    "prompt.", "context.too_long", "request.constraint", "request.prompt", "request.stop",
    "request.model", "admin.", "access.", "model.",
)  # fmt: skip
_CROSS_FIELDS = {
    "stream_options", "top_logprobs", "max_tokens", "tools", "best_of", "guided_regex", "guided_json",
    "response_format", "structured_outputs.regex", "structured_outputs.json",
}  # fmt: skip
_CROSS_SAID = re.compile(
    r"has content or tool_calls|valid integer(, got -?[\d.e+]+)?$"
    r"|^prompt\[\d+\]: expected a valid string, got -?[\d.e+]+$"
)
"""What a refusal of a well-formed request is about: its fields together, or this model. And 7.0, which
JSON Schema calls an integer and we do not, also among the tokens of a prompt."""
_STAYS = ("GET /admin/keys/{id}", "use_after_free")
"""A key that was taken back is still shown, as revoked: who had it when is what somebody will ask."""


@dataclass
class Found:
    """What a run did and what it found."""

    operations: set[str] = field(default_factory=set)
    tried: dict[str, Counter[str]] = field(default_factory=dict)
    """Requests by operation, by phase."""
    statuses: Counter[int] = field(default_factory=Counter)
    faults: dict[tuple[str, str], str] = field(default_factory=dict)
    """The first of each kind, by operation and check."""
    broken: list[str] = field(default_factory=list)
    """What kept the run itself from doing its work."""
    links: int = 0

    @property
    def requests(self) -> int:
        return sum(count.total() for count in self.tried.values())

    def untried(self) -> list[str]:
        """Operations that a phase left out."""
        wanted = ("examples", "coverage", "fuzzing")
        return [
            f"{operation} in {phase}"
            for operation in sorted(self.operations)
            for phase in wanted
            if not self.tried.get(operation, {}).get(phase)
        ]


def config(key: str, examples: int, phases: Sequence[str] = PHASES) -> SchemathesisConfig:
    """`examples` of each operation, with NUL and all of Unicode in texts."""
    refused = ["400", "401", "403", "404", "405", "409", "412", "413", "415", "422", "429", "431"]
    return SchemathesisConfig.from_dict(
        {
            "seed": 19,
            "generation": {
                "mode": "all", "max-examples": examples, "no-shrink": True, "database": "none",
                "allow-x00": True, "codec": "utf-8",
            },
            "phases": {phase: {"enabled": phase in phases} for phase in PHASES}
            | {"examples": {"enabled": "examples" in phases, "fill-missing": True}},
            "checks": {
                "positive_data_acceptance": {"enabled": False},
                "negative_data_rejection": {"expected-statuses": refused},
                "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503", "504"]},
            },
            "auth": {"openapi": {name: {"bearer": key} for name in ("key", "HTTPBearer")}},
            "request-timeout": 20,
            "continue-on-failure": True,
        }
    )  # fmt: skip


def fuzz(schema: BaseSchema, alive: Alive, paths: str = "^/") -> Found:
    """`alive` is asked after every answer. `paths` also takes in what gave the document."""
    found = Found()
    schema = schema.include(path_regex=paths)
    found.operations = {each.ok().label for each in schema.get_all_operations()}
    with _more_checks(alive):
        for event in from_schema(schema).execute():
            _hear(found, event)
    return found


def _hear(found: Found, event: Any) -> None:
    match event:
        case events.ScenarioFinished():
            _scenario(found, event)
        case events.NonFatalError():
            found.broken.append(f"{event.label}: {event.value!r}"[:500])
        case events.FatalError():
            found.broken.append(repr(event.exception)[:500])
        case events.PhaseStarted(payload=events.StatefulPhasePayload() as payload):
            found.links = payload.transitions_selected


def _scenario(found: Found, event: events.ScenarioFinished) -> None:
    recorder = event.recorder
    for name, node in recorder.cases.items():
        label = node.value.operation.label
        found.tried.setdefault(label, Counter())[event.phase.value] += 1
        interaction = recorder.interactions.get(name)
        if interaction is not None and interaction.response is not None:
            found.statuses[interaction.response.status_code] += 1
    for name, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                label = recorder.cases[name].value.operation.label
                if (label, check.name) == _STAYS:
                    continue
                said = f"{check.failure_info.failure.message}\n{check.failure_info.code_sample}"
                found.faults.setdefault((label, check.name), said[:2_000])


def _answerable(context: Any, case: Any, kwargs: Any) -> None:
    """Of most requests that name a model, make one that there is, and of long answers short ones."""
    body = case.body
    if not isinstance(body, dict) or not {"messages", "prompt"} & set(body):
        return
    model, most = body.get("model"), body.get("max_tokens")
    if isinstance(model, str) and 0 < len(model) <= 256 and len(model) % 4:
        body["model"] = ("base", "acme/one", "acme/support")[len(model) % 3]
    if most is None or (isinstance(most, int) and 4 < most < 4_096):
        body["max_tokens"] = body.get("max_completion_tokens") or 4
    if isinstance(body.get("max_tokens"), int) and 4 < body["max_tokens"] < 4_096:
        body["max_tokens"] = body["max_completion_tokens"] = 4


@contextmanager
def _more_checks(alive: Alive) -> Any:
    """Checks of our own, for one run."""

    def a_refusal_says_what_does_not_go_together(context: Any, response: Any, case: Any) -> None:
        mode = case.meta.generation.mode if case.meta else None
        if response.status_code == 400 and mode is not None and mode.is_positive:
            error = json.loads(response.content)["error"]
            known = error["code"].startswith(_CROSS) or error["param"] in _CROSS_FIELDS
            if not known and not _CROSS_SAID.search(error["message"]):
                raise AssertionError(f"well-formed and refused: {error}")

    def the_engine_is_alive(context: Any, response: Any, case: Any) -> None:
        if not alive():
            raise AssertionError("the engine does not beat any more")

    ours = (a_refusal_says_what_does_not_go_together, the_engine_is_alive)
    for check in ours:
        schemathesis.check(check)
    schemathesis.hook("before_call")(_answerable)
    try:
        yield
    finally:
        unregister(_answerable)
        for check in ours:
            schemathesis.checks.CHECKS.unregister(check.__name__)
