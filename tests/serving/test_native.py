"""Compiled kernels give what torch's operations give, on any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import carray
from numba.core import caching
from torch import Tensor
from torch.nn import functional as F

from foreword.serving.engine.model.between import Eager, native
from foreword.serving.engine.model.native import compiling
from foreword.serving.engine.model.native.compiling import integers_at
from foreword.serving.engine.model.native.operations import Native
from foreword.serving.engine.model.native.parts import Parts
from foreword.serving.engine.model.native.places import Places
from foreword.serving.engine.model.native.team import Team
from foreword.serving.engine.model.norms import Norm

SMALL = st.integers(1, 9)
SEEDS = st.integers(0, 2**32)
close = torch.testing.assert_close


@pytest.fixture(scope="module", params=[1, 2], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Two threads take part in everything, however small."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foreword.serving.engine.model.native.team._SMALL", 0)
        yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def kernels() -> Native:
    found = native()
    assert found is not None
    return found


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape)


@given(seed=SEEDS, rows=SMALL, inputs=st.integers(1, 70), outputs=st.lists(SMALL, min_size=1))
@settings(max_examples=60)
def test_a_linear_layer_in_parts(
    kernels: Native, seed: int, rows: int, inputs: int, outputs: list[int]
) -> None:
    torch.manual_seed(seed)
    weights = [rand(11 * size, inputs) for size in outputs]
    biases = [rand(11 * size) if size % 2 else None for size in outputs]
    x = rand(rows, inputs)
    expected = [F.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)]
    close(kernels.linear(x, Parts(weights, biases)), torch.cat(expected, 1), rtol=1e-5, atol=1e-4)


@given(seed=SEEDS, rows=SMALL, dim=st.integers(1, 100), first=st.booleans())
@settings(max_examples=60)
def test_a_sum_and_its_norm(kernels: Native, seed: int, rows: int, dim: int, first: bool) -> None:
    torch.manual_seed(seed)
    x, delta, norm = rand(rows, dim), None if first else rand(rows, dim), Norm(rand(dim), 0.01)
    other = x.clone()
    close(kernels.add_norm(x, delta, norm), Eager().add_norm(other, delta, norm))
    close(x, other)


@given(
    seed=SEEDS,
    tokens=SMALL,
    queries=SMALL,
    keys=SMALL,
    half=st.integers(1, 20),
    norms=st.booleans(),
)
@settings(max_examples=60)
def test_a_rotation(
    kernels: Native, seed: int, tokens: int, queries: int, keys: int, half: int, norms: bool
) -> None:
    torch.manual_seed(seed)
    qkv, dim = rand(tokens, queries + 2 * keys, 2 * half), 2 * half
    angles = rand(tokens, dim), rand(tokens, dim)
    given_norms = (Norm(rand(dim), 0.1), Norm(rand(dim), 0.2)) if norms else None
    heads, eager = (queries, keys), Eager()
    expected = eager.turned(qkv.clone(), eager.angles(*angles), heads, given_norms)
    values = qkv[:, queries + keys :].clone()
    close(kernels.turned(qkv, kernels.angles(*angles), heads, given_norms), expected)
    assert torch.equal(qkv[:, queries + keys :], values)


@given(seed=SEEDS, tokens=SMALL, dim=st.integers(1, 1100), scale=st.sampled_from([1.0, 30.0, 1e30]))
@settings(max_examples=60)
def test_a_gate(kernels: Native, seed: int, tokens: int, dim: int, scale: float) -> None:
    torch.manual_seed(seed)
    both = rand(tokens, 2 * dim)
    both[:, :dim] *= scale
    close(kernels.gated(both), Eager().gated(both))


def arena(rows: int, heads: int, capacity: int, *dims: int) -> tuple[Tensor, Tensor]:
    key, value = (rand(rows, heads, capacity, dim) for dim in dims)
    return key, value


def attended(
    step: tuple[Tensor, ...], kept: tuple[Tensor, ...], places: Places, scale: float
) -> tuple[Tensor, Tensor]:
    """In float64, a token and a head at a time."""
    query, key, value = (tensor.double() for tensor in step)
    keys, values = (tensor.double().clone() for tensor in kept)
    keys[places.rows, :, places.columns] = key
    values[places.rows, :, places.columns] = value
    group = query.shape[1] // key.shape[1]
    out = torch.zeros(*query.shape[:2], value.shape[2], dtype=torch.float64)
    lse = torch.zeros(*query.shape[:2], dtype=torch.float64)
    for token, row in enumerate(places.rows.tolist()):
        seen = slice(int(places.firsts[token]), int(places.ends[token]))
        for head in range(query.shape[1]):
            scores = keys[row, head // group, seen] @ query[token, head] * scale
            out[token, head] = scores.softmax(0) @ values[row, head // group, seen]
            lse[token, head] = scores.logsumexp(0)
    return out.float(), lse.float()


@given(
    seed=SEEDS, tokens=SMALL, kv_heads=st.integers(1, 4), group=st.integers(1, 4),
    dims=st.tuples(st.integers(1, 40), st.integers(1, 40)), joined=st.booleans(),
)  # fmt: skip
@settings(max_examples=80)
def test_attention_of_rows_of_different_length(
    kernels: Native, seed: int, tokens: int, kv_heads: int, group: int, dims: tuple[int, int],
    joined: bool,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    heads = kv_heads * group
    if joined:  # as a joined projection gives them: parts of one tensor
        dims = (dims[0], dims[0])
        query, key, value = rand(tokens, heads + 2 * kv_heads, dims[0]).split(
            [heads, kv_heads, kv_heads], dim=1
        )
    else:  # as transformers gives them: heads before tokens
        query = rand(heads, tokens, dims[0]).transpose(0, 1)
        key, value = (rand(kv_heads, tokens, dim).transpose(0, 1) for dim in dims)
    kept = arena(tokens + 2, kv_heads, 48, *dims)
    columns = torch.randint(0, 48, (tokens,))
    firsts = (torch.rand(tokens) * (columns + 1)).long()
    places = Places(torch.randperm(tokens + 2)[:tokens], columns, firsts, columns + 1, 48)
    expected = attended((query, key, value), kept, places, 0.3)
    before = tuple(tensor.clone() for tensor in kept)
    found = kernels.attend((query, key, value), kept, places, 0.3)
    close(found, expected, rtol=1e-5, atol=1e-5)
    for tensor, old, new in zip(kept, before, (key, value), strict=True):
        old[places.rows, :, places.columns] = new
        assert torch.equal(tensor, old)  # and nothing else was written


@pytest.mark.parametrize("what", ["key", "value", "query"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_lost(kernels: Native, what: str, number: float) -> None:
    """The engine ends a request whose logits are not finite, and no other."""
    torch.manual_seed(0)
    query, (keys, values) = rand(3, 4, 16), arena(3, 2, 32, 16, 16)
    {"key": keys, "value": values}.get(what, query)[1, ..., 5] = number
    if what != "query":
        {"key": keys, "value": values}[what][1, :, :, 5] = 0
        {"key": keys, "value": values}[what][1, :, 3, 5] = number
    ends = torch.full((3,), 9)
    places = Places(torch.arange(3), ends - 1, torch.zeros_like(ends), ends, 32)
    out, _ = kernels.attend((query, rand(3, 2, 16), rand(3, 2, 16)), (keys, values), places, 1.0)
    finite = out.isfinite().flatten(1).all(1).tolist()
    assert finite == [True, False, True]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_norms_and_gates_do_not_lose_it_either(kernels: Native, number: float) -> None:
    x, both = rand(2, 40), rand(2, 80)
    x[1, 7] = both[1, 47] = number
    for found in (kernels.add_norm(x, None, Norm(torch.ones(40), 0.1)), kernels.gated(both)):
        assert found.isfinite().all(1).tolist() == [True, False]


def test_tensors_that_do_not_go_together_are_refused(kernels: Native) -> None:
    with pytest.raises(ValueError, match="expected"):
        kernels.add_norm(rand(2, 8), rand(2, 7), Norm(rand(8), 0.1))
    with pytest.raises(ValueError, match="expected"):
        kernels.gated(rand(8, 4).t())
    with pytest.raises(ValueError, match="expected"):
        kernels.linear(rand(2, 8), Parts([rand(3, 7)], [None]))
    ones = torch.ones(2, dtype=torch.long)
    step = rand(2, 4, 8), rand(2, 2, 8), rand(2, 2, 8)
    for kept, longest in ((arena(2, 2, 16, 8, 7), 4), (arena(2, 2, 16, 8, 8), 17)):
        with pytest.raises(ValueError, match=r"expected|do not go together"):
            kernels.attend(step, kept, Places(ones, ones, ones - 1, ones + 1, longest), 1.0)


# Where they cannot run.


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, text=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("missing", ["sys.modules['numba'] = None", "ctypes.CDLL = broken"])
def test_without_numba_or_gnu_openmp_torch_does_it(missing: str) -> None:
    assert run(
        "import ctypes, sys, torch\n"
        "def broken(name, *a, **k): raise OSError(name + ': cannot open shared object file')\n"
        f"from tests.tiny import tiny_base\n{missing}\n"
        "from foreword.serving.engine.model.between import native\n"
        "from foreword.serving.engine.model.runner import ModelRunner\n"
        "print(native(), ModelRunner(tiny_base('llama')).name)"
    ) == "None lean"  # fmt: skip


def test_without_a_directory_to_keep_code_in_it_is_compiled_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])

    @compiling.kernel("out")
    def seven(words):
        integers_at(carray(words, 1)[0].out)[0] = 7

    out = torch.zeros(1, dtype=torch.long)
    Team().run(seven, 1, out=out.data_ptr())
    assert out.tolist() == [7]


def test_what_numba_cannot_compile_counts_as_missing() -> None:
    with pytest.raises(ImportError, match="does not compile"):

        @compiling.kernel("out")
        def wrong(words):
            words.nothing()
