"""The files beside `tokenizer.json`: special and added tokens, BOS and EOS, as `transformers` reads them."""

import json

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from framework.models.loading.byte_tokenizer import byte_tokenizer
from framework.models.loading.load import load_model
from framework.models.loading.tokenizer import Tokenizer
from tests.loading.tokenizer_writer import write_tokenizer

TEXT = "a<|im_end|> <bos>b<new>c <extra>d<two>"
IM_END = {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def write(folder, settings, **files):
    write_tokenizer(byte_tokenizer(), folder, **settings)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))


def assert_equals_transformers(folder):
    ours, reference = Tokenizer.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.encode(TEXT) == reference.encode(TEXT)
    assert ours.encode(TEXT, add_special_tokens=False) == reference.encode(TEXT, add_special_tokens=False)
    ids = ours.encode(TEXT)
    assert ours.decode(ids) == reference.decode(ids, skip_special_tokens=True)
    for name in ("bos_token", "eos_token", "pad_token"):
        assert ours.special_tokens.get(name) == getattr(reference, name)
    assert ours.vocab_size == len(reference)
    return ours


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        ({"eos_token": None}, {"special_tokens_map": {"eos_token": IM_END, "bos_token": "<bos>"}}),
        ({}, {"special_tokens_map": {"eos_token": "<|im_end|>"}}),  # comes before tokenizer_config.json
        ({}, {"special_tokens_map": {"additional_special_tokens": ["<extra>", "<|im_start|>"]}}),
        ({}, {"added_tokens": {"<new>": 259, "<two>": 260}}),
        ({"bos_token": "<bos>"}, {"added_tokens": {"<bos>": 260, "<new>": 259}}),
        (
            {
                "added_tokens_decoder": {
                    "260": {"content": "<bos>", "special": True, "normalized": False},
                    "259": {"content": "<new>", "special": False, "normalized": False, "lstrip": True},
                },
                "bos_token": "<bos>",
            },
            {"special_tokens_map": {"eos_token": "<|im_end|>"}, "added_tokens": {"<two>": 261}},  # not read then
        ),
        ({"added_tokens_decoder": {"257": {"content": "<|im_end|>", "special": False, "normalized": False}}}, {}),
        ({"pad_token": "<|im_start|>", "extra_special_tokens": ["<extra>"]}, {}),
        ({"bos_token": "<|im_start|>", "add_bos_token": True}, {}),  # tokenizer.json says what is added
    ],
)
def test_as_transformers(tmp_path, settings, files):
    write(tmp_path, settings, **files)
    assert_equals_transformers(tmp_path)


@pytest.mark.parametrize(
    ("settings", "files", "message"),
    [
        ({}, {"added_tokens": {"<new>": 300}}, r"added_tokens.json: token '<new>' has id 300 .* gives it 259"),
        (
            {"added_tokens_decoder": {"300": {"content": "<new>"}}},
            {},
            r"tokenizer_config.json: token '<new>' has id 300",
        ),
        ({}, {"added_tokens": {"<new>": "259"}}, r"added_tokens.json: the id of '<new>' must be an integer"),
        ({"added_tokens_decoder": {"x": {"content": "<new>"}}}, {}, "added_tokens_decoder must map ids to tokens"),
        ({"added_tokens_decoder": [1]}, {}, "added_tokens_decoder must map ids to tokens"),
        ({"added_tokens_decoder": {"259": {"content": 5}}}, {}, "added_tokens_decoder must map ids to tokens"),
        ({"eos_token": 5}, {}, "eos_token=5 must be a text"),
        ({"eos_token": {"special": True}}, {}, "eos_token=None must be a text"),
        ({"chat_template": 5}, {}, "tokenizer_config.json: chat_template must be a text or a list of objects"),
        ({"chat_template": [{"name": "x"}]}, {}, "chat_template 'x' must be a text, not None"),
        ({}, {"special_tokens_map": []}, "special_tokens_map.json must hold a JSON object, not a list"),
    ],
)
def test_wrong_settings_name_their_file(tmp_path, settings, files, message):
    write(tmp_path, settings, **files)
    with pytest.raises(ValueError, match=message) as caught:
        Tokenizer.from_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_tokenizer_that_transformers_cannot_convert_is_named(tmp_path):
    (tmp_path / "vocab.json").write_text("[]")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    with pytest.raises(ValueError, match=rf"{tmp_path}: transformers can't convert the tokenizer"):
        Tokenizer.from_folder(tmp_path)


def test_the_tokenizers_eos_ends_an_answer(tmp_path):
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3]}))
    write(tmp_path, {"eos_token": "<|im_end|>"})

    def end_tokens():
        return load_model({"path": str(tmp_path)}, device=torch.device("cpu"), dtype=torch.float32).eos_token_ids

    assert end_tokens() == (2, 3, 257)
    write(tmp_path, {"eos_token": None}, special_tokens_map={"eos_token": IM_END})
    assert end_tokens() == (2, 3, 257)
    write(tmp_path, {"eos_token": None}, special_tokens_map={})
    assert end_tokens() == (2, 3)
