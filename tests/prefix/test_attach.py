"""What attaching a prefix means, on every family: equal to PEFT, to the longer run, to itself."""

from __future__ import annotations

import peft
import pytest
import torch
from torch import Tensor

from foreword.artifact import Site
from foreword.errors import CompatibilityError, UnsupportedModel
from foreword.prefix.attach import attach
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import LayerKV, PrefixKV
from foreword.prefix.observe import AttentionShare, kv_of_tokens, observing
from foreword.prefix.packing import Packing
from foreword.prefix.selfcheck import check_attachment
from tests.tiny import DECODERS, ENCODER_DECODERS, FAMILIES, WINDOWED, ids, tiny


def random_prefix(base: BaseModel, length: int, seed: int = 0) -> PrefixKV:
    generator = torch.Generator().manual_seed(seed)
    return PrefixKV(
        length,
        {
            site: {
                i: LayerKV(
                    torch.randn(g.kv_heads, length, g.key_dim, generator=generator),
                    torch.randn(g.kv_heads, length, g.value_dim, generator=generator),
                )
                for i, g in layers.items()
            }
            for site, layers in base.geometry.sites.items()
        },
    )


def decoder_only(prefix: PrefixKV) -> PrefixKV:
    return PrefixKV(prefix.length, {Site.DECODER: prefix.layers[Site.DECODER]})


def with_peft(family: str, prefix: PrefixKV) -> peft.PeftModel:
    """The same random model under PEFT, with the same numbers as its prompt embedding."""
    task = "SEQ_2_SEQ_LM" if family in ENCODER_DECODERS else "CAUSAL_LM"
    model = tiny(family)
    options = {}
    if family in ENCODER_DECODERS:
        # PEFT would make one encoder prefix for both stacks and count layers of the encoder.
        options = {"num_layers": len(prefix.layers[Site.DECODER]), "num_transformer_submodules": 1}
    config = peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=prefix.length, **options)
    wrapped = peft.get_peft_model(model, config).eval()
    columns = [
        tensor.transpose(0, 1).reshape(prefix.length, -1)
        for layer in prefix.layers[Site.DECODER].values()
        for tensor in (layer.key, layer.value)
    ]
    embedding = wrapped.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        embedding.copy_(torch.cat(columns, dim=1))
    return wrapped


@pytest.mark.parametrize("family", DECODERS)
@torch.no_grad()
def test_logits_equal_peft_on_a_padded_batch(family: str) -> None:
    base = BaseModel.from_model(tiny(family))
    prefix = random_prefix(base, 5)
    tokens = ids(3, 11)
    mask = torch.ones_like(tokens)
    mask[1, 7:] = 0
    expected = with_peft(family, prefix)(input_ids=tokens, attention_mask=mask).logits
    with attach(base, prefix):
        got = base.model(input_ids=tokens, attention_mask=mask).logits
    assert (got - expected)[mask.bool()].abs().max() < 1e-5
    bare = base.model(input_ids=tokens, attention_mask=mask).logits
    assert (got - bare)[mask.bool()].abs().max() > 1e-2, "the prefix changed nothing"


@pytest.mark.parametrize("family", list(FAMILIES))
def test_real_tokens_as_prefix_equal_the_longer_run(family: str) -> None:
    # Encoder-decoders: all three sites at once, which PEFT cannot do.
    check = check_attachment(BaseModel.from_model(tiny(family)))
    assert check.error < 2e-6
    assert check.packed_error is None or check.packed_error < 2e-6


@pytest.mark.parametrize("family", ENCODER_DECODERS)
@pytest.mark.parametrize("site", list(Site))
@torch.no_grad()
def test_each_site_alone_changes_the_outputs(family: str, site: Site) -> None:
    base = BaseModel.from_model(tiny(family))
    whole = random_prefix(base, 4)
    one = PrefixKV(4, {site: whole.layers[site]})
    inputs = {"input_ids": ids(2, 9), "decoder_input_ids": ids(2, 6, seed=1)}
    bare = base.model(**inputs).logits
    with attach(base, one):
        assert (base.model(**inputs).logits - bare).abs().max() > 1e-3


def mixed_rows(base: BaseModel) -> list[PrefixKV | None]:
    """Different lengths, no prefix, one shared by two rows, and one with fewer layers."""
    shared = random_prefix(base, 3, seed=1)
    whole = random_prefix(base, 6, seed=2)
    partial = PrefixKV(6, {s: {0: layers[0]} for s, layers in whole.layers.items()})
    return [shared, None, random_prefix(base, 7, seed=3), shared, partial]


def alone(base: BaseModel, prefix: PrefixKV | None, row: dict[str, Tensor]) -> Tensor:
    with attach(base, prefix):
        logits: Tensor = base.model(**row).logits
    return logits


@pytest.mark.parametrize("family", list(FAMILIES))
@torch.no_grad()
def test_a_mixed_batch_equals_one_row_at_a_time(family: str) -> None:
    base = BaseModel.from_model(tiny(family))
    prefixes = mixed_rows(base)
    batch = {"input_ids": ids(5, 9)}
    if base.kind == "seq2seq":
        batch["decoder_input_ids"] = ids(5, 6, seed=1)
    with attach(base, prefixes):
        together = base.model(**batch).logits
    for i, prefix in enumerate(prefixes):
        row = {name: tensor[i : i + 1] for name, tensor in batch.items()}
        assert (together[i : i + 1] - alone(base, prefix, row)).abs().max() < 1e-5


@pytest.mark.parametrize("family", DECODERS)
@torch.no_grad()
def test_a_mixed_padding_free_batch_equals_one_row_at_a_time(family: str) -> None:
    base = BaseModel.from_model(tiny(family))
    prefixes, lengths = mixed_rows(base), [9, 4, 1, 7, 6]
    rows = [ids(1, n, seed=n) for n in lengths]
    packing = Packing.of(lengths)
    with attach(base, prefixes, packing=packing):
        flat = base.model(
            input_ids=torch.cat(rows, dim=1),
            position_ids=packing.positions(),
            attention_mask=packing.placeholder_mask(),
            use_cache=False,
        ).logits
    for row, prefix, part in zip(rows, prefixes, flat.split(lengths, dim=1), strict=True):
        assert (part - alone(base, prefix, {"input_ids": row})).abs().max() < 1e-5


@pytest.mark.parametrize("family", [*DECODERS, *ENCODER_DECODERS])
def test_mixed_generation_equals_one_row_at_a_time(family: str) -> None:
    base = BaseModel.from_model(tiny(family))
    prefixes, lengths = mixed_rows(base), [9, 4, 12, 7, 6]
    rows = [ids(1, n, seed=n) for n in lengths]
    left = base.kind == "causal"
    batch, mask = torch.zeros(5, 12, dtype=torch.long), torch.zeros(5, 12, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(12 - row.shape[1], 12) if left else slice(0, row.shape[1])
        batch[i, place], mask[i, place] = row[0], 1
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    with attach(base, prefixes):
        together = base.model.generate(input_ids=batch, attention_mask=mask, **options)
    for i, (row, prefix) in enumerate(zip(rows, prefixes, strict=True)):
        with attach(base, prefix):
            single = base.model.generate(
                input_ids=row, attention_mask=torch.ones_like(row), **options
            )
        assert together[i, -8:].tolist() == single[0, -8:].tolist()


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral", "gemma3", "opt"])
def test_greedy_tokens_equal_peft(family: str) -> None:
    base = BaseModel.from_model(tiny(family))
    prefix = random_prefix(base, 5)
    tokens = ids(2, 7)
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    expected = with_peft(family, prefix).generate(**inputs, **options)
    with attach(base, prefix):
        got = base.model.generate(**inputs, **options)
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_beams_belong_to_their_row(family: str) -> None:
    base = BaseModel.from_model(tiny(family))
    prefixes = [random_prefix(base, 4, seed=1), None]
    options = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False, "eos_token_id": None}
    rows = ids(2, 6)
    with attach(base, prefixes):
        together = base.model.generate(
            input_ids=rows, attention_mask=torch.ones_like(rows), **options
        )
    for i, prefix in enumerate(prefixes):
        row = rows[i : i + 1]
        with attach(base, prefix):
            single = base.model.generate(
                input_ids=row, attention_mask=torch.ones_like(row), **options
            )
        assert together[i].tolist() == single[0].tolist()


@pytest.mark.parametrize("family", WINDOWED)
@torch.no_grad()
def test_a_sliding_window_slides_past_the_prefix(family: str) -> None:
    # With windowed layers only, a token further than all windows together cannot see the prefix.
    model = tiny(family)
    base = BaseModel.from_model(model)
    prefix = random_prefix(base, 3)
    windowed = [
        i
        for i in range(3)
        if family == "mistral" or model.config.layer_types[i] != "full_attention"
    ]
    part = PrefixKV(3, {Site.DECODER: {i: prefix.layers[Site.DECODER][i] for i in windowed[:1]}})
    tokens = ids(1, 40)
    share = AttentionShare()
    with observing(base, share), attach(base, part):
        base.model(input_ids=tokens)
    seen = share.result()[Site.DECODER][windowed[0]] * 40
    assert 0 < seen <= 3, "at most the first window - 1 queries see any of the prefix"


@torch.no_grad()
def test_attention_share_is_the_softmax_mass_on_the_prefix() -> None:
    base = BaseModel.from_model(tiny("llama"))
    tokens = ids(1, 6)
    share = AttentionShare()
    with observing(base, share), attach(base, kv_of_tokens(base, {"input_ids": tokens}, 2)):
        base.model(input_ids=tokens[:, 2:])
    model = tiny("llama")
    model.set_attn_implementation("eager")
    weights = model(input_ids=tokens, output_attentions=True).attentions
    for layer, value in share.result()[Site.DECODER].items():
        assert value == pytest.approx(float(weights[layer][0, :, 2:, :2].sum(-1).mean()), abs=1e-5)


def test_a_prefix_of_another_shape_is_refused() -> None:
    base = BaseModel.from_model(tiny("llama"))
    other = BaseModel.from_model(tiny("gpt2"))
    with (
        pytest.raises(CompatibilityError, match="layer 0 expects"),
        attach(base, random_prefix(other, 3)),
    ):
        pass


def test_attachments_do_not_nest() -> None:
    base = BaseModel.from_model(tiny("llama"))
    prefix = random_prefix(base, 3)
    with (
        attach(base, prefix),
        pytest.raises(CompatibilityError, match="already attached"),
        attach(base, prefix),
    ):
        pass


@torch.no_grad()
def test_leaving_the_block_gives_back_the_bare_model() -> None:
    tokens = ids(2, 8)
    for family in ("llama", "gpt2", "opt"):
        expected = tiny(family)(input_ids=tokens).logits
        base = BaseModel.from_model(tiny(family))
        with attach(base, random_prefix(base, 3)):
            base.model(input_ids=tokens)
        assert torch.equal(base.model(input_ids=tokens).logits, expected)


def test_models_that_cannot_carry_a_prefix_are_refused_with_a_reason() -> None:
    import transformers as tf

    mamba = tf.MambaForCausalLM(tf.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1))
    with pytest.raises(UnsupportedModel, match="no attention keys and values"):
        BaseModel.from_model(mamba)
    albert = tf.AlbertForMaskedLM(
        tf.AlbertConfig(
            vocab_size=64,
            hidden_size=16,
            num_attention_heads=2,
            intermediate_size=16,
            embedding_size=8,
        )
    )
    with pytest.raises(UnsupportedModel, match="share one attention module"):
        BaseModel.from_model(albert)
