"""Fills a model from the safetensors files of a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from framework.models.decoder import DecoderLM
from framework.models.layers.weight_slot import WeightSlot
from framework.models.loading.finite import check_finite
from framework.models.loading.tensor_files import EMBEDDING, HEAD, INDEX, StoredTensor, open_tensors, tensor_files
from framework.models.weight_slots import weight_slots

_DTYPES = ("F64", "F32", "F16", "BF16")
_QUANTISED_FILES = {"quantize_config.json": "GPTQ", "quant_config.json": "AWQ", "hf_quant_config.json": "ModelOpt"}
_QUANTISED_NAMES = (
    *("qweight", "qzeros", "scales", "g_idx", "biases", "weight_scale", "weight_scale_inv", "weight_scale_2"),
    *("input_scale", "weight_packed", "weight_shape", "weight_zero_point", "absmax", "SCB"),
)


def fill_from_folder(model: DecoderLM, folder: Path) -> None:
    """Copy each tensor's slice of this rank straight from the mapped files into its parameter.

    Raises:
        ValueError: naming file and tensor, for a file that is missing or truncated, a tensor that is missing,
            unexpected, of the wrong shape or not finite, or a dtype that isn't floating point.
    """
    _check_not_quantised(folder)
    slots = weight_slots(model)
    split = model.embed_tokens.group.size > 1
    files = tensor_files(folder)
    if model.config.tie_embeddings and EMBEDDING not in files and HEAD in files:
        files[EMBEDDING] = files[HEAD]  # saved under its other name
    _check_names(folder, files, slots, tied=model.config.tie_embeddings)
    names_of: dict[Path, list[str]] = {}
    for name in slots:
        names_of.setdefault(files[name].path, []).append(name)
    for path, names in names_of.items():
        with open_tensors(path) as file:
            held = set(file.keys())
            for name in names:
                if files[name].name not in held:
                    raise ValueError(
                        f"{path}: tensor {files[name].name} is missing, though {INDEX} names the file for it; "
                        f"download or save the model again"
                    )
                _fill(path, file, files[name], slots[name], split=split)
    check_finite(model, slots, lambda name: _read(files[name]), str(folder))


def _read(place: StoredTensor) -> Any:
    with open_tensors(place.path) as file:
        return file.get_tensor(place.name)


def _fill(path: Path, file: Any, place: StoredTensor, slot: WeightSlot, *, split: bool) -> None:
    source = file.get_slice(place.name)
    if (dtype := source.get_dtype()) not in _DTYPES:
        raise ValueError(
            f"{path}: tensor {place.name} has dtype {dtype}, as quantised weights have; supported are "
            f"{', '.join(_DTYPES)}: use the unquantised checkpoint"
        )
    shape = tuple(source.get_shape())
    if shape != slot.full_shape:
        raise ValueError(
            f"{path}: tensor {place.name} has shape {list(shape)}, but the config asks for {list(slot.full_shape)}"
        )
    # A whole tensor is a view of the mapped file; a slice is read into memory first, but only what it covers.
    slot.load(source if split else file.get_tensor(place.name))


def _check_not_quantised(folder: Path) -> None:
    for name, method in _QUANTISED_FILES.items():
        if (folder / name).exists():
            raise ValueError(
                f"{folder / name}: weights quantised with {method} are not supported; use the unquantised checkpoint"
            )


def _check_names(folder: Path, files: dict[str, StoredTensor], slots: Iterable[str], *, tied: bool) -> None:
    if quantised := [name for name in files if name.rpartition(".")[2] in _QUANTISED_NAMES]:
        raise ValueError(
            f"{files[quantised[0]].path}: tensor {files[quantised[0]].name} belongs to quantised weights, "
            f"which are not supported; use the unquantised checkpoint"
        )
    missing = [name for name in slots if name not in files]
    if missing == [HEAD]:
        raise ValueError(
            f"{folder}: tensor {HEAD} is missing, and tie_word_embeddings is false: this is a base model, saved "
            f"without its LM head; use the checkpoint of the causal language model (...ForCausalLM)"
        )
    if missing:
        raise ValueError(f"{folder}: tensor {missing[0]} is missing{_and_more(missing)}")
    expected = set(slots)
    if unexpected := [name for name in files if name not in expected and not _is_derived(name, tied)]:
        place = files[unexpected[0]]
        raise ValueError(f"{place.path}: tensor {place.name} doesn't belong to this model{_and_more(unexpected)}")


def _is_derived(name: str, tied: bool) -> bool:
    """Whether a tensor repeats what the model has anyway: older checkpoints hold such copies."""
    return name.endswith("rotary_emb.inv_freq") or (tied and name == HEAD)


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
