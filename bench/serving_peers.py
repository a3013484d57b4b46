"""The other sides of `bench/serving.py`, each in a process of its own, each as fast as its own
documentation makes it on a CPU.

`generate` is transformers' `model.generate` on one static batch of equal-length prompts. `continuous` is
transformers' continuous batching with a manager that stays up. `peft` is PEFT with prefix tuning: one
adapter is active at a time, so the requests of one adapter form a batch and the batches follow each other.
`vllm` is vLLM's CPU build, without adapters or with LoRAs of rank 8.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serving_sides import Stopwatch, Taken, Work, generating, serve

PEFT_ADAPTERS = 32
LORAS, LORA_RANK = 8, 8
CONTEXT = 1024
"""Tokens of one request, at the most: far above what the benchmark asks for."""


def save_loras(base: Path, directory: Path) -> list[Path]:
    """`LORAS` random LoRAs on q and v, written as PEFT writes them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    wanted = LoraConfig(
        task_type="CAUSAL_LM",
        r=LORA_RANK,
        target_modules=["q_proj", "v_proj"],
        init_lora_weights=False,  # otherwise one factor is zero and all LoRAs are the same
    )
    saved = []
    for number in range(LORAS):
        torch.manual_seed(number)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        saved.append(directory / f"lora-{number}")
        get_peft_model(model, wanted).save_pretrained(saved[-1])
    return saved


def static_generate(base: Path) -> Callable[[Work], Taken]:
    model = _model(base)

    def run(work: Work) -> Taken:
        watch = Stopwatch(work.size)
        _generate(model, work, range(work.size), watch)
        return watch.stop()

    return run


def peft_prefixes(base: Path) -> Callable[[Work], Taken]:
    """All adapters are loaded beforehand; switching is PEFT's own `set_adapter`."""
    from peft import PrefixTuningConfig, get_peft_model

    def wanted() -> PrefixTuningConfig:
        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=16)

    model = get_peft_model(_model(base), wanted(), adapter_name="0")
    for number in range(1, PEFT_ADAPTERS):
        model.add_adapter(str(number), wanted())
    model.eval()

    def run(work: Work) -> Taken:
        watch = Stopwatch(work.size)
        for adapter in range(work.adapters):
            model.set_adapter(str(adapter))
            group = [i for i in range(work.size) if work.adapter(i) == adapter]
            _generate(model, work, group, watch)
        return watch.stop()

    return run


def _model(base: Path) -> Any:
    """The base, told that no token ends an answer."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def _generate(model: Any, work: Work, group: Sequence[int], watch: Stopwatch) -> None:
    """One static batch of the requests in `group`, their prompts being equally long."""
    import torch

    def note(ids: Any, *_: Any, **__: Any) -> Any:
        for index in group:
            watch.first(index)
        return torch.zeros(ids.shape[0], dtype=torch.bool)

    ids = torch.tensor([work.prompts[index] for index in group])
    with torch.inference_mode():
        whole = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
            max_new_tokens=work.tokens, stopping_criteria=[note],
        )  # fmt: skip
    for index, row in zip(group, whole[:, ids.shape[1] :].tolist(), strict=True):
        watch.got(index, row)


class Continuous:
    """transformers' continuous batching; its own thread must not meet `inference_mode`."""

    def __init__(self, base: Path) -> None:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        self._model = _model(base)
        self._model.set_attn_implementation("sdpa")
        self._wanted = GenerationConfig(
            do_sample=False, max_new_tokens=CONTEXT, eos_token_id=-1, pad_token_id=0
        )
        # Left alone it takes 90 % of the machine's memory: 64 pages of 256 tokens are enough.
        self._settings = ContinuousBatchingConfig(
            num_blocks=64, max_batch_tokens=2048, use_async_batching=False
        )
        self._manager = self._model.init_continuous_batching(
            generation_config=self._wanted, continuous_batching_config=self._settings
        )
        self._manager.start()

    def run(self, work: Work) -> Taken:
        """The work of a server that is up."""
        watch, order = Stopwatch(work.size), {}
        for index, prompt in enumerate(work.prompts):
            name = self._manager.add_request(
                list(prompt), max_new_tokens=work.tokens, record_timestamps=True
            )
            order[name] = index
        while order:
            result = self._manager.get_result(timeout=1)
            if result is None and not self._manager.is_running():
                raise RuntimeError("the continuous batching thread ended")
            if result is not None and result.is_finished():
                self._note(watch, order.pop(result.request_id), result)
        return watch.stop()

    def run_once(self, **arguments: Any) -> float:
        """Seconds of `generate_batch`, which brings a manager up and takes it down again."""
        work = Work(**arguments)
        began = time.perf_counter()
        self._model.generate_batch(
            inputs=[list(prompt) for prompt in work.prompts],
            generation_config=self._wanted, continuous_batching_config=self._settings,
            max_new_tokens=work.tokens,
        )  # fmt: skip
        return time.perf_counter() - began

    @staticmethod
    def _note(watch: Stopwatch, index: int, result: Any) -> None:
        if result.error is not None:
            raise RuntimeError(f"continuous batching gave up a request: {result.error}")
        watch.first(index, result.timestamps[0])
        watch.got(index, result.generated_tokens)


class Vllm:
    """vLLM's engine in this process, compiled as it is by default, and stepped by hand."""

    def __init__(self, base: Path, loras: Sequence[Path]) -> None:
        os.environ |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # "auto" would leave it one core of two
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        from vllm import LLM, SamplingParams
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RequestOutputKind

        adapters = {"enable_lora": True, "max_loras": LORAS, "max_lora_rank": LORA_RANK}
        self._engine = LLM(
            model=str(base), dtype="float32", max_model_len=CONTEXT,
            max_num_seqs=32, seed=0, disable_log_stats=True, **(adapters if loras else {}),
        ).llm_engine  # fmt: skip
        self._loras = [LoRARequest(lora.name, i + 1, str(lora)) for i, lora in enumerate(loras)]
        self._greedy = SamplingParams(
            temperature=0.0, ignore_eos=True, output_kind=RequestOutputKind.DELTA
        )
        self._count = 0

    def run(self, work: Work) -> Taken:
        wanted = self._greedy.clone()
        wanted.max_tokens = work.tokens
        watch, order = Stopwatch(work.size), {}
        for index, prompt in enumerate(work.prompts):
            adapter = work.adapter(index)
            lora = None if adapter is None else self._loras[adapter]
            name, self._count = str(self._count), self._count + 1
            order[name] = index
            self._engine.add_request(
                name, {"prompt_token_ids": list(prompt)}, wanted, lora_request=lora
            )
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                watch.got(order[output.request_id], list(output.outputs[0].token_ids))
        return watch.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["generate", "continuous", "peft", "vllm"])
    parser.add_argument("base", type=Path)
    parser.add_argument("--loras", type=Path, nargs="*", default=[])
    given = parser.parse_args()

    def load() -> dict[str, Callable[..., object]]:
        if given.peer == "continuous":
            peer = Continuous(given.base)
            return {"generate": generating(peer.run), "generate_batch": peer.run_once}
        if given.peer == "vllm":
            vllm = Vllm(given.base, given.loras)
            return {"generate": generating(vllm.run)}
        make = {"generate": static_generate, "peft": peft_prefixes}[given.peer]
        return {"generate": generating(make(given.base))}

    serve(load)


if __name__ == "__main__":
    main()
