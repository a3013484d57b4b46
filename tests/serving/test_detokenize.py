"""Streaming text equals decoding at once, for every kind of tokenizer, and is never taken back."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from foreword.prefix.bases import demo_base
from foreword.serving.engine.text.detokenize import Detokenizer, Spelling
from tests.tiny import tokenizer as characters


def _fast(inner: Tokenizer) -> PreTrainedTokenizerFast:
    inner.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    inner.add_tokens([AddedToken("<tool>"), AddedToken("日本")])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def byte_level() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "Ġthe", "Ġ😀"[0] + "ðŁ", "å¤"])}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return _fast(inner)


_PIECES = [
    "<unk>",
    *(f"<0x{i:02X}>" for i in range(256)),
    "▁",
    "▁the",
    "▁▁",
    "ing",
    "a",
    "é",
    "�",
    ".",
]


def llama_like() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE({p: i for i, p in enumerate(_PIECES)}, [], byte_fallback=True))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    return _fast(inner)


def t5_like() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.Unigram([(p, -1.0) for p in ["<unk>", *_PIECES[257:]]], 0))
    inner.decoder = decoders.Metaspace()
    return _fast(inner)


def bert_like() -> PreTrainedTokenizerFast:
    words = ["[UNK]", "the", "##ing", "##s", "dog", ".", "##.", "'", "n't"]
    inner = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.decoder = decoders.WordPiece()
    return _fast(inner)


KINDS = {
    "byte-level": byte_level(),
    "byte fallback": llama_like(),
    "metaspace": t5_like(),
    "wordpiece": bert_like(),
    "characters": characters(),
}
SPELLINGS = {name: Spelling(tokenizer) for name, tokenizer in KINDS.items()}


def stream(spelling: Spelling, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(spelling)
    return [*(detokenizer.push(i) for i in ids), detokenizer.flush()]


def whole(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_pieces_together_are_the_whole(kind: str, data: st.DataObject) -> None:
    tokenizer = KINDS[kind]
    # Beyond the vocabulary too: a model may have more logits than its tokenizer has tokens.
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) + 2), max_size=60))
    assert "".join(stream(SPELLINGS[kind], ids)) == whole(tokenizer, ids)


@pytest.mark.parametrize("kind", ["byte-level", "byte fallback"])
@given(
    text=st.text("aé€😀\ufffd日 ", max_size=20), cut=st.integers(0, 3), junk=st.binary(max_size=3)
)
def test_valid_and_broken_utf8(kind: str, text: str, cut: int, junk: bytes) -> None:
    """Bytes of real characters, random bytes among them, and an end inside a character."""
    tokenizer, data = KINDS[kind], text.encode()
    data = data[: len(data) // 2] + junk + data[len(data) // 2 : len(data) - cut]
    if kind == "byte fallback":
        ids = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in data]
    else:
        spell = dict(zip(range(256), _byte_letters(), strict=True))
        ids = [tokenizer.convert_tokens_to_ids(spell[byte]) for byte in data]
    assert "".join(stream(SPELLINGS[kind], ids)) == whole(tokenizer, ids)


def _byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte, as the library itself maps it."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = {}
    for point in [*range(0x80), *range(0x80, 0x800), *range(0x800, 0x11_0000, 0x1000)]:
        if 0xD800 <= point < 0xE000:
            continue
        spelled = level.pre_tokenize_str(chr(point))[0][0]
        letters.update(zip(chr(point).encode(), spelled, strict=True))
    # Bytes that no UTF-8 text has: the alphabet is ordered like the bytes above 0xA1.
    letters.update({byte: chr(byte) for byte in range(256) if byte not in letters})
    return [letters[byte] for byte in range(256)]


def test_half_a_character_is_never_shown() -> None:
    letters, tokenizer = _byte_letters(), KINDS["byte-level"]
    ids = [tokenizer.convert_tokens_to_ids(letters[b]) for b in "a😀b".encode()]
    assert stream(SPELLINGS["byte-level"], ids) == ["a", "", "", "", "😀", "b", ""]
    assert stream(SPELLINGS["byte-level"], ids[:4]) == ["a", "", "", "", "\ufffd"]


def test_silent_tokens_inside_a_character_do_not_push_it_out_of_sight() -> None:
    letters, tokenizer = _byte_letters(), KINDS["byte-level"]
    first, *rest = [tokenizer.convert_tokens_to_ids(letters[b]) for b in "é".encode()]
    for silent in (tokenizer.bos_token_id, len(tokenizer) + 5):
        ids = [first, *[silent] * 40, *rest]
        assert "".join(stream(SPELLINGS["byte-level"], ids)) == "é"


def test_a_run_of_bytes_waits_because_its_end_decides_its_text() -> None:
    tokenizer, spelling = KINDS["byte fallback"], SPELLINGS["byte fallback"]
    ids = [tokenizer.convert_tokens_to_ids(f"<0x{b:02X}>") for b in "é".encode()]
    end, bad = tokenizer.convert_tokens_to_ids(["a", "<0xFF>"])
    assert stream(spelling, [*ids, end]) == ["", "", "éa", ""]
    assert stream(spelling, [*ids, bad, end]) == ["", "", "", "\ufffd\ufffd\ufffda", ""]


def test_special_tokens_leave_no_trace() -> None:
    tokenizer = KINDS["metaspace"]
    start, the, ing = tokenizer.convert_tokens_to_ids(["<s>", "▁the", "ing"])
    assert stream(SPELLINGS["metaspace"], [start, the, start, ing, the]) == [
        "", "the", "", "ing", " the", "",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["byte-level", "byte fallback"])
@pytest.mark.parametrize("token", ["common", "broken", "special"])
def test_the_work_per_token_does_not_grow(kind: str, token: str) -> None:
    """20,000 tokens, also of the kinds that wait: quadratic work would take minutes."""
    tokenizer = KINDS[kind]
    broken = "<0x80>" if kind == "byte fallback" else _byte_letters()[0x80]
    i = tokenizer.convert_tokens_to_ids({"common": "a", "broken": broken, "special": "<s>"}[token])
    started = time.process_time()
    pieces = stream(SPELLINGS[kind], [i] * 20_000)
    assert time.process_time() - started < 5
    assert "".join(pieces) == whole(tokenizer, [i] * 20_000)
    if kind == "byte-level":
        assert len(pieces[-1]) <= 1


@pytest.mark.real
def test_smollm2_random_tokens_and_real_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo_base())
    spelling, rng = Spelling(tokenizer), random.Random(0)
    for _ in range(200):
        ids = [rng.randrange(len(tokenizer)) for _ in range(60)]
        assert "".join(stream(spelling, ids)) == whole(tokenizer, ids)
    text = "Zwölf 日本語 😀👩‍👩‍👧 \ud7ff naïve — «fin» \t\n  done"
    ids = tokenizer(text).input_ids
    pieces = stream(spelling, ids)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
