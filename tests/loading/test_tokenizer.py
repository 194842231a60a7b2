"""The wrapper around `tokenizers`: streaming, chat templates, files."""

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from framework.models.loading.byte_tokenizer import NUM_BYTE_TOKENS, byte_tokenizer
from framework.models.loading.tokenizer import Tokenizer
from tests.loading.tokenizer_writer import write_tokenizer

BYTES = byte_tokenizer()


def streamed(tokenizer, ids, **options):
    stream = tokenizer.stream_decoder(**options)
    return "".join(stream.push(i) for i in ids) + stream.flush()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, NUM_BYTE_TOKENS + 5)), st.booleans())
def test_streaming_any_bytes_equals_decoding_them_at_once(ids, skip):
    expected = BYTES.decode(ids, skip_special_tokens=skip)
    assert streamed(BYTES, ids, skip_special_tokens=skip) == expected


def test_a_character_appears_when_its_last_byte_does():
    stream = BYTES.stream_decoder()
    assert [stream.push(i) for i in BYTES.encode("é🎉a")] == ["", "é", "", "", "", "🎉", "a"]


def sentencepiece_like() -> Tokenizer:
    vocab = {"<unk>": 0, "▁hello": 1, "▁world": 2, "s": 3}
    vocab |= {f"<0x{byte:02X}>": 4 + byte for byte in range(256)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend)


def test_streaming_keeps_spaces_and_byte_fallback_of_other_tokenizers():
    tokenizer = sentencepiece_like()
    emoji = [4 + byte for byte in "🎉".encode()]
    ids = [1, 2, 3, *emoji, 2, 1, 3]
    assert tokenizer.decode(ids) == "hello worlds🎉 world hellos"
    assert streamed(tokenizer, ids) == "hello worlds🎉 world hellos"


def piece_tokenizer(decoder, **options) -> Tokenizer:
    """Words, spaces, special tokens, something that looks like a byte, and the bytes of a few characters."""
    pieces = ["<unk>", "▁", "▁a", "b", "▁▁", "é", "\N{REPLACEMENT CHARACTER}", "<0xZZ>", "##c", ".", "Ġd", "Ã", "©"]
    pieces += [f"<0x{byte:02X}>" for byte in (*"é".encode(), *"🎉".encode(), 0x61, 0x20, 0xFF)]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", **options))
    backend.decoder = decoder
    backend.add_special_tokens(["<s>", "</s>"])
    backend.add_tokens(["added é", " "])
    return Tokenizer(backend)


PIECES = {
    "llama": piece_tokenizer(
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    ),
    "gemma": piece_tokenizer(decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])),
    "bytes alone": piece_tokenizer(decoders.ByteFallback()),
    "metaspace": piece_tokenizer(decoders.Metaspace()),
    "byte level in a sequence": piece_tokenizer(decoders.Sequence([decoders.ByteLevel()])),
    "byte level": piece_tokenizer(decoders.ByteLevel()),
}


@pytest.mark.parametrize("kind", PIECES)
@settings(max_examples=150, deadline=None)
@given(ids=st.lists(st.integers(0, 30), max_size=14), skip=st.booleans())
def test_streaming_any_pieces_equals_decoding_them_at_once(kind, ids, skip):
    tokenizer = PIECES[kind]
    assert streamed(tokenizer, ids, skip_special_tokens=skip) == tokenizer.decode(ids, skip_special_tokens=skip)


def test_bytes_that_are_no_text_are_as_many_replacement_characters_as_in_decode():
    ids = [4 + byte for byte in b"\xc3\xa9\xff"]
    assert sentencepiece_like().decode(ids) == streamed(sentencepiece_like(), ids) == "\N{REPLACEMENT CHARACTER}" * 3


TEMPLATE = """{%- for message in messages %}
    {%- if message.role not in ["user", "assistant"] %}{{ raise_exception("no " + message.role) }}{% endif %}
    {%- if loop.index > 2 %}{% break %}{% endif %}
    {{- bos_token + message.role + ': ' + message | tojson }}
{%- endfor %}
{% if add_generation_prompt %}assistant:{% endif %}"""


def test_chat_template_renders_as_in_transformers(tmp_path):
    tokenizer = Tokenizer(BYTES.backend, chat_template=TEMPLATE, special_tokens={"bos_token": "<|im_start|>"})
    reference = PreTrainedTokenizerFast(
        tokenizer_object=BYTES.backend, bos_token="<|im_start|>", chat_template=TEMPLATE
    )
    messages = [{"role": "user", "content": "a <b> é"}, {"role": "assistant", "content": "c"}] * 2
    for add in (True, False):
        expected = reference.apply_chat_template(messages, add_generation_prompt=add, tokenize=False)
        assert tokenizer.render_chat(messages, add_generation_prompt=add) == expected
        ids = reference.apply_chat_template(messages, add_generation_prompt=add)["input_ids"]
        assert tokenizer.apply_chat_template(messages, add_generation_prompt=add) == ids


def test_refused_messages_and_missing_templates_are_user_errors():
    tokenizer = Tokenizer(BYTES.backend, chat_template=TEMPLATE)
    with pytest.raises(ValueError, match=r"the chat template refuses these messages: no system"):
        tokenizer.render_chat([{"role": "system", "content": ""}])
    with pytest.raises(ValueError, match=r"no chat template; pass plain prompts"):
        Tokenizer(BYTES.backend).apply_chat_template([])
    with pytest.raises(ValueError, match=r"not valid Jinja"):
        Tokenizer(BYTES.backend, chat_template="{% if %}").render_chat([])


@pytest.mark.parametrize("form", ["config", "named", "file"])
def test_files_round_trip_in_every_form_of_chat_template(tmp_path, form):
    write_tokenizer(BYTES, tmp_path)
    settings_path = tmp_path / "tokenizer_config.json"
    values = json.loads(settings_path.read_text())
    template = values["chat_template"]
    values["eos_token"] = {"content": "<|im_end|>", "special": True}
    if form == "named":
        values["chat_template"] = [{"name": "tool", "template": "x"}, {"name": "default", "template": template}]
    if form == "file":
        values["chat_template"] = "stale"
        (tmp_path / "chat_template.jinja").write_text(template)
    settings_path.write_text(json.dumps(values))
    tokenizer = Tokenizer.from_folder(tmp_path)
    messages = [{"role": "user", "content": "hi"}]
    assert tokenizer.render_chat(messages) == BYTES.render_chat(messages)
    assert tokenizer.eos_token_ids == (257,)
    assert tokenizer.vocab_size == NUM_BYTE_TOKENS


def test_older_formats_are_converted_by_transformers(tmp_path):
    alphabet = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    (tmp_path / "vocab.json").write_text(json.dumps({**alphabet, "he": 256, "<|endoftext|>": 257}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh e\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.encode("hehé<|endoftext|>") == [256, *BYTES.encode("hé"), 257]


def test_broken_or_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no tokenizer.json"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json can't be read as a tokenizer"):
        Tokenizer.from_folder(tmp_path)
