"""Behaviour probe: a few inputs and the logits that base + prefix gave when the prefix was made.

Equal shapes do not mean equal meaning. Before a prefix is used, its stored logits must come out
again; a base with other weights, another rotary scaling or another attention order does not pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foreword.artifact import Probe
from foreword.errors import CompatibilityError
from foreword.prefix.attach import attach
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import PrefixKV
from foreword.prefix.selfcheck import tolerance

_TOP, _SPREAD = 8, 8
_RANDOM_INPUTS, _RANDOM_TOKENS = 4, 12
_MACHINE_SLACK = 20.0
"""Between processors and attention kernels rounding differs more than within one."""


def make_probes(
    base: BaseModel, prefix: PrefixKV, inputs: Sequence[Sequence[int]]
) -> tuple[Probe, ...]:
    """Record last-position logits for a few inputs: the largest ones and some across the range."""
    probes = []
    for ids in inputs:
        logits = _last_logits(base, prefix, ids)
        spread = torch.linspace(0, logits.shape[0] - 1, _SPREAD).long()
        chosen = torch.cat([logits.topk(min(_TOP, logits.shape[0])).indices, spread]).unique()
        probes.append(Probe(tuple(ids), tuple(chosen.tolist()), tuple(logits[chosen].tolist())))
    return tuple(probes)


def probe_inputs(base: BaseModel) -> list[list[int]]:
    """Random token ids, for a prefix whose training rows are not known."""
    vocabulary = base.model.config.get_text_config(decoder=True).vocab_size
    generator = torch.Generator().manual_seed(0)
    low = min(10, vocabulary - 1)
    drawn = torch.randint(low, vocabulary, (_RANDOM_INPUTS, _RANDOM_TOKENS), generator=generator)
    return [[int(token) for token in row] for row in drawn]


def check_probes(base: BaseModel, prefix: PrefixKV, probes: Sequence[Probe]) -> float:
    """Largest relative difference from the stored logits.

    Raises:
        CompatibilityError: it is over the bound, so this base does not behave as the one the
            prefix was made with; or a probe cannot be run here at all.
    """
    bound = tolerance(base.dtype) * (_MACHINE_SLACK if base.dtype == torch.float32 else 1.0)
    worst = 0.0
    for probe in probes:
        _check_room(base, prefix, probe)
        stored = torch.tensor(probe.logits)
        logits = _last_logits(base, prefix, probe.input_ids)
        _check_words("a logit", max(probe.logit_ids), logits.shape[0])
        found = logits[list(probe.logit_ids)]
        difference = float((found - stored).abs().max()) / max(1.0, float(stored.abs().max()))
        worst = max(worst, difference)
    if not worst <= bound:
        raise CompatibilityError(
            f"the prefix does not behave here as it did when it was made: its probe logits differ "
            f"by {worst:.2g} (relative), allowed is {bound:.2g}; the base's weights, attention "
            "implementation or position scaling are not the same",
            code="base.probe",
        )
    return worst


def _check_room(base: BaseModel, prefix: PrefixKV, probe: Probe) -> None:
    """An embedding table is indexed with whatever it is given, so the bounds are looked at first."""
    words = base.model.get_input_embeddings().weight.shape[0]
    _check_words("an input", max(probe.input_ids), words)
    if base.context is not None and prefix.length + len(probe.input_ids) > base.context:
        raise CompatibilityError(
            f"a probe has {len(probe.input_ids)} tokens behind {prefix.length} virtual ones, the "
            f"context of {base.ref.id} is {base.context}; the prefix was made for another base",
            code="base.probe",
        )


def _check_words(what: str, largest: int, words: int) -> None:
    if largest >= words:
        raise CompatibilityError(
            f"a probe has {what} of token {largest}, this base knows tokens 0 to {words - 1}; the "
            "prefix was made for another base",
            code="base.probe",
        )


@torch.no_grad()
def _last_logits(base: BaseModel, prefix: PrefixKV, ids: Sequence[int]) -> Tensor:
    """Logits `[vocabulary]` at the last position, float32, on the CPU."""
    inputs = {"input_ids": torch.tensor([list(ids)], device=base.device)}
    if base.kind == "seq2seq":
        start = base.model.config.decoder_start_token_id
        inputs["decoder_input_ids"] = torch.tensor([[start]], device=base.device)
    with attach(base, prefix):
        logits: Tensor = base.model(**inputs).logits[0, -1]
    return logits.float().cpu()
