"""One step through the model: token ids and places in, logits out.

A decoder runs through its own modules, whatever its family, with our attention in place of its own;
families we have written out (`lean.py`) run that way instead. Both read the same arenas.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from foreword.artifact import LayerGeometry, Site
from foreword.errors import UnsupportedModel
from foreword.prefix.base_model import BaseModel
from foreword.prefix.discover import probe_inputs
from foreword.prefix.selfcheck import tolerance
from foreword.prefix.slots import Hub, Slot
from foreword.serving.engine.model import pages
from foreword.serving.engine.model.attention import Piece, Scoring, Step, as_many
from foreword.serving.engine.model.between import native
from foreword.serving.engine.model.evened import all_evened, evened
from foreword.serving.engine.model.lean import lean_decoder
from foreword.serving.engine.model.packed import PackedLinear, packs
from foreword.serving.engine.model.rows import RowPool
from foreword.serving.engine.waiting.ledger import Ledger

if TYPE_CHECKING:
    from foreword.serving.engine.model.native.operations import Native

_REFUSED = {"position_bias", "s_aux", "cache"}
"""What a layer may ask of its attention function that ours does not do."""
_KNOWN_LAYERS = {"full_attention", "sliding_attention"}
"""What else a layer may be (attention in chunks) it is told by a mask, which a step does not use."""


class ModelRunner:
    """Runs steps on one frozen decoder.

    Raises:
        UnsupportedModel: its attention does something ours does not know, or a step does not give
            the logits of the model's own forward pass.
    """

    def __init__(
        self, base: BaseModel, *, lean: bool = True, pack: bool = True, compiled: bool = True
    ) -> None:
        if base.kind != "causal":
            raise UnsupportedModel(
                f"{base.ref.architecture} is not a decoder; the engine steps decoders only",
                code="engine.not_a_decoder",
            )
        _refuse_unknown_layers(base)
        self._base = base
        self.layers: Mapping[int, LayerGeometry] = base.geometry.sites[Site.DECODER]
        self._native = native() if compiled and _float32_on_cpu(base) else None
        self._lean = lean_decoder(base.model, self._native, pack) if lean else None
        self._linears = self._lean.linears if self._lean else []
        if self._lean is None and pack:
            self._linears = _pack_linears(base, self._native)
        self._fit = evened if any(linear.packed for linear in self._linears) else as_many
        self._check()
        if base.device.type == "cpu":
            pages.settle(sum(weight.nbytes for weight in base.model.parameters()))

    @property
    def name(self) -> str:
        return "lean" if self._lean is not None else "modules"

    @torch.inference_mode()
    def run(self, pieces: Sequence[Piece]) -> Tensor:
        """Float32 logits `[piece, vocabulary]` of the last token of every piece."""
        step = Step(pieces, self._base.device, self._native, self._fit)
        logits = self._lean(step) if self._lean is not None else self._through_modules(step)
        return logits[: len(pieces)].float()

    @torch.inference_mode()
    def warm_up(self, rows: int, seconds: float) -> None:
        """Have kernels made for steps of up to `rows` rows, the smallest first, as far as `seconds` go.

        Otherwise the first step with a new number of rows waits for them.
        """
        end = time.monotonic() + seconds
        shapes = {linear.shape: linear for linear in self._linears if linear.packed}
        for count in all_evened(rows):
            for (_, width), linear in shapes.items():
                if time.monotonic() >= end:
                    return
                linear(torch.zeros(count, width))

    def _through_modules(self, step: Step) -> Tensor:
        hub = self._base.hub
        hub.step = _Modules(step)
        try:
            out = self._base.model(
                input_ids=step.ids[None],
                position_ids=step.positions[None],
                # Four dimensions: transformers then builds no mask of its own.
                attention_mask=torch.zeros(1, 1, 1, 1, device=step.ids.device),
                use_cache=False,
                logits_to_keep=step.last,
            )
        finally:
            hub.step = None
        logits: Tensor = out.logits[0]
        return logits

    def _check(self) -> None:
        """A prompt in two pieces, then one token: the model's own forward must agree."""
        ids = probe_inputs(self._base.model)["input_ids"][0].tolist()
        pool = RowPool(self.layers, self._base.dtype, self._base.device, Ledger(1 << 40), 1)
        rows = pool.reserve(len(ids), 1) or []
        for first, last in ((0, 3), (3, len(ids) - 1), (len(ids) - 1, len(ids))):
            found = self.run([Piece(rows[0], ids[first:last], first, None, False)])[0]
        with torch.inference_mode():
            expected = self._base.model(torch.tensor([ids], device=self._base.device)).logits
        off = float((found - expected[0, -1].float()).abs().max())
        scale = max(1.0, float(expected[0, -1].float().abs().max()))
        if not off <= tolerance(self._base.dtype) * scale:
            raise UnsupportedModel(
                f"{self._base.ref.architecture}: a step of the engine is {off:.2g} from the "
                "model's own forward pass; its attention does something the engine does not know",
                code="engine.self_check",
            )


class _Modules:
    """Our attention in the words of transformers' attention interface."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def attend(
        self, slot: Slot, query: Tensor, key: Tensor, value: Tensor, arguments: Mapping[str, Any]
    ) -> Tensor:
        unknown = [
            name for name, given in arguments.items()
            if name in _REFUSED and given is not None
        ]  # fmt: skip
        if unknown:
            raise UnsupportedModel(
                f"this model's attention uses {', '.join(sorted(unknown))}, which the engine does "
                "not know",
                code="engine.attention",
            )
        scoring = Scoring(
            scale=arguments.get("scaling") or query.shape[-1] ** -0.5,
            window=arguments.get("sliding_window"),
            softcap=arguments.get("softcap"),
        )
        q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        return self._step.attend(slot.layer, q, k, v, scoring)[None]


def _float32_on_cpu(base: BaseModel) -> bool:
    return base.device.type == "cpu" and base.dtype == torch.float32


def _refuse_unknown_layers(base: BaseModel) -> None:
    """The self-check cannot find these out: a short text lies within one chunk."""
    kinds = getattr(base.model.config.get_text_config(decoder=True), "layer_types", None) or ()
    if unknown := sorted(set(kinds) - _KNOWN_LAYERS):
        raise UnsupportedModel(
            f"{base.ref.architecture} has layers of {', '.join(unknown)}, which the engine does not "
            "know",
            code="engine.attention",
        )


def _pack_linears(base: BaseModel, native: Native | None) -> list[PackedLinear]:
    """Give every linear layer a packed weight, used in engine steps and nowhere else."""
    made = []
    for module in base.model.modules():
        if type(module) is nn.Linear and packs(module.weight) and "forward" not in vars(module):
            made.append(PackedLinear([module], True, native))
            object.__setattr__(module, "forward", _packed_forward(module, base.hub, made[-1]))
    return made


def _packed_forward(
    linear: nn.Linear, hub: Hub, packed: PackedLinear
) -> Callable[[Tensor], Tensor]:
    plain = linear.forward

    def forward(x: Tensor) -> Tensor:
        # Training needs the gradient, which the packed product does not have.
        return plain(x) if hub.step is None else packed(x)

    return forward
