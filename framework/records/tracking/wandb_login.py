"""Whether Weights & Biases would find credentials, decided without the network and without importing wandb (1 s)."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_URL = "https://api.wandb.ai"


def logged_in() -> bool:
    """Whether there is an API key or identity token in the environment, or a key in netrc for the configured server."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or DEFAULT_URL).netloc
    for path in _netrc_paths():
        try:
            credentials = netrc.netrc(path).authenticators(host)
        except (OSError, netrc.NetrcParseError):  # absent or not ours to read: wandb would not find a key either
            continue
        if credentials is not None and credentials[2]:
            return True
    return False


def _netrc_paths() -> list[Path]:
    if named := os.environ.get("NETRC"):
        return [Path(named).expanduser()]
    return [Path.home() / ".netrc", Path.home() / "_netrc"]
