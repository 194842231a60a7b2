"""Tokenizers rebuilt from GGUF metadata, against those that `transformers` rebuilds."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen3_5.tokenization_qwen3_5 import Qwen3_5Tokenizer

from framework.models.loading.gguf_tokenizer import gguf_tokenizer
from framework.models.loading.load import load_config
from tests.loading.gguf_reference import reference_tokenizer
from tests.loading.gguf_writer import CHAT_TEMPLATE, MERGES, SPECIAL, TOKENS, write_gguf

TEXTS = [
    "hello 12 hell, Grüße 🎉\n\ttab",
    "It's WE'LL don't  \n\n  x 1234567 a1b2 ... !!?\r\n/usr/bin HelloWorld ÉCOLE été",
    "नमस्ते दुनिया مرحبا 漢字かな 中文123",
    " leading  and trailing ",
]


def bpe(pre, *, ids=(("bos", 1), ("eos", 2)), **flags):
    def write(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(TOKENS)
        writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
        writer.add_token_merges(MERGES)
        for name, token_id in ids:
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token_id)
        for name, value in flags.items():
            writer.add_bool(f"tokenizer.ggml.{name}", value)

    return write


PIECES = ["▁h", "▁he", "he", "ll", "hell", "hello", "▁hello", "▁w", "or", "ld", "orld", "▁world", "▁▁", "ing"]
SPM_TOKENS = [
    *("<unk>", "<s>", "</s>"),
    *(f"<0x{byte:02X}>" for byte in range(256)),
    *PIECES,
    *sorted(set("▁" + "abcdefghijklmnopqrstuvwxyzéß.,!")),
    *("<|user|>", "<think>"),
]


def sentencepiece(*, scores=None, types=None, ids=(("bos", 1), ("eos", 2), ("unknown", 0)), **flags):
    def write(writer):
        count = len(SPM_TOKENS)
        writer.add_tokenizer_model("llama")
        writer.add_token_list(SPM_TOKENS)
        writer.add_token_scores(scores or [-float(i) for i in range(count)])
        writer.add_token_types(types or [2, 3, 3, *[6] * 256, *[1] * (count - 261), 3, 4])
        for name, token_id in ids:
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token_id)
        for name, value in flags.items():
            writer.add_bool(f"tokenizer.ggml.{name}", value)

    return write


def written(tmp_path, tokenizer, **options):
    path = tmp_path / "tiny.gguf"
    count = len(SPM_TOKENS) if tokenizer.__qualname__.startswith("sentencepiece") else len(TOKENS)
    write_gguf(path, tokenizer=tokenizer, vocab_size=count, **options)
    return path


def test_tokenizer_is_rebuilt(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    tokenizer = gguf_tokenizer(path)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    pieces = [tokenizer.backend.id_to_token(i) for i in tokenizer.encode("hello 12<|im_end|>")]
    assert pieces == ["hello", "Ġ", "1", "2", "<|im_end|>"]  # digits stand alone, though "12" is a token
    assert tokenizer.decode(tokenizer.encode("a<|im_end|>")) == "a"
    assert tokenizer.eos_token_ids == (2,)
    messages = [{"role": "user", "content": "hello"}]
    reference = reference_tokenizer(path)
    assert reference.chat_template == CHAT_TEMPLATE
    expected = reference.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert tokenizer.apply_chat_template(messages) == expected


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "tekken", "qwen2", "deepseek-r1-qwen", "qwen35"])
def test_words_are_split_as_in_transformers(tmp_path, pre):
    path = written(tmp_path, bpe(pre, add_bos_token=False))
    ours, reference = gguf_tokenizer(path).backend, reference_tokenizer(path).backend_tokenizer
    for text in TEXTS:
        split = [piece for piece, _ in ours.pre_tokenizer.pre_tokenize_str(text)]
        assert split == [piece for piece, _ in reference.pre_tokenizer.pre_tokenize_str(text)], text
        assert ours.encode(text).ids == reference.encode(text).ids


def test_qwen_normalises(tmp_path):
    decomposed = "e\N{COMBINING ACUTE ACCENT}"
    official = Qwen3_5Tokenizer().backend_tokenizer.normalizer.normalize_str(decomposed)
    for pre in ("qwen2", "qwen35"):
        tokenizer = gguf_tokenizer(written(tmp_path, bpe(pre)))
        assert tokenizer.backend.normalizer.normalize_str(decomposed) == official == "é"


def test_default_splits_as_llama_cpp(tmp_path):
    """Its expressions one after the other: punctuation, GPT-2's words, digits, digits in threes."""
    backend = gguf_tokenizer(written(tmp_path, bpe("default"))).backend

    def split(text):
        return [piece.replace("Ġ", " ") for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]

    assert split("a=b, c!") == ["a", "=", "b", ",", " c", "!"]
    assert split("don't 12345678") == ["don", "'", "t", " ", "123", "456", "78"]
    assert split("x <= y") == ["x", " ", "<=", " y"]


@pytest.mark.parametrize(
    ("pre", "flags", "bos", "eos"),
    [
        ("llama-bpe", {}, True, False),
        ("tekken", {}, True, False),
        ("llama-bpe", {"add_bos_token": False}, False, False),
        ("qwen2", {}, False, False),
        ("default", {}, False, False),
        ("gpt-2", {"add_bos_token": True, "add_eos_token": True}, True, True),
        ("qwen2", {"add_eos_token": True}, False, True),
    ],
)
def test_bos_and_eos_as_in_llama_cpp(tmp_path, pre, flags, bos, eos):
    tokenizer = gguf_tokenizer(written(tmp_path, bpe(pre, **flags)))
    plain = tokenizer.encode("hello", add_special_tokens=False)
    assert tokenizer.encode("hello") == [1] * bos + plain + [2] * eos


def test_end_tokens_are_all_that_the_file_names(tmp_path):
    ids = (("bos", 1), ("eos", 2), ("eot", 0), ("eom", 5))
    assert load_config({"path": str(written(tmp_path, bpe("qwen2", ids=ids)))}).eos_token_ids == (2, 0, 5)
    assert load_config({"path": str(written(tmp_path, bpe("qwen2", ids=(("eot", 0),))))}).eos_token_ids == (0,)


@pytest.mark.parametrize("flags", [{}, {"add_space_prefix": False}, {"add_bos_token": False, "add_eos_token": True}])
def test_sentencepiece_as_in_transformers(tmp_path, flags):
    path = written(tmp_path, sentencepiece(**flags))
    ours, reference = gguf_tokenizer(path), reference_tokenizer(path)
    assert ours.eos_token_ids == (2,)
    for text in [*TEXTS, "hello world", "helloing  hell", "<|user|>hello<think> world</s>", "unseen ☃ $"]:
        plain = ours.encode(text, add_special_tokens=False)
        if flags.get("add_space_prefix", True):  # else transformers drops the flag
            assert plain == reference.encode(text, add_special_tokens=False), text
            assert ours.decode(plain, skip_special_tokens=False) == reference.decode(plain)
        bos, eos = flags.get("add_bos_token", True), flags.get("add_eos_token", False)
        assert ours.encode(text) == [1] * bos + plain + [2] * eos


def llama_cpp_sentencepiece(text):
    """SentencePiece's BPE as llama.cpp runs it: of all neighbours that form a piece the best is joined first."""
    ids = {token: i for i, token in enumerate(SPM_TOKENS)}
    symbols = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [(ids[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(symbols)) if a + b in ids]
        if not pairs:
            break
        _, place = min(pairs)  # the score falls with the id
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
    found = []
    for symbol in symbols:
        found += [ids[symbol]] if symbol in ids else [3 + byte for byte in symbol.encode()]
    return found


@settings(max_examples=30, deadline=None)
@given(st.from_regex(r"[helowrding☃é][helo wrd ing☃é]{0,24}", fullmatch=True))
def test_sentencepiece_merges_as_llama_cpp(tmp_path_factory, text):
    tokenizer = _shared_sentencepiece(tmp_path_factory)
    assert tokenizer.encode(text, add_special_tokens=False) == llama_cpp_sentencepiece(text)


_cache = {}


def _shared_sentencepiece(tmp_path_factory):
    if "tokenizer" not in _cache:
        _cache["tokenizer"] = gguf_tokenizer(written(tmp_path_factory.mktemp("spm"), sentencepiece()))
    return _cache["tokenizer"]


def broken(**keys):
    def write(writer):
        values = {"model": "gpt2", "pre": "qwen2", "tokens": TOKENS, "merges": MERGES, **keys}
        for name, value in values.items():
            add = {str: writer.add_string, int: writer.add_uint32, list: writer.add_array}.get(type(value))
            if value is not None:
                add(f"tokenizer.ggml.{name}", value)

    return write


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pre": "exotic"}, "pre-tokenizer 'exotic' is not supported; supported are smollm.*model.tokenizer"),
        ({"model": "bert"}, "tokenizer model 'bert' is not supported, only 'gpt2' and 'llama' are"),
        ({"model": None}, "lacks tokenizer.ggml.model, a text"),
        ({"merges": ["zz q"]}, "the tokenizer's parts don't fit together.*model.tokenizer"),
        ({"merges": ["zz"]}, "merges holds 'zz', which is not two tokens"),
        ({"merges": None}, "lacks tokenizer.ggml.merges, a list of str"),
        ({"merges": 5}, "tokenizer.ggml.merges is 5, not a list of str"),
        ({"tokens": "abc"}, "tokenizer.ggml.tokens is 'abc', not a list of str"),
        ({"eos_token_id": 999}, "eos_token_id=999, but there are 265 tokens"),
        ({"eos_token_id": "2"}, "eos_token_id is '2', not an integer"),
        ({"pre": "llama-bpe"}, "prompts get the BOS token, but tokenizer.ggml.bos_token_id is missing"),
        ({"model": "llama", "scores": [1.0]}, "265 tokens have 1 scores"),
    ],
)
def test_broken_tokenizers_are_named(tmp_path, keys, message):
    path = written(tmp_path, broken(**keys))
    with pytest.raises(ValueError, match=rf"tiny.gguf.*{message}"):
        gguf_tokenizer(path)
