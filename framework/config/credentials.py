"""Keeps passwords and tokens out of what is configured, since all of that is recorded, logged and sent to trackers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_IN_URL = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@|[?&](?:[a-z_]*token|api_?key|password|sig|secret)=\w", re.I
)
_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(?:_ID)?$", re.I)
_MIN_LENGTH = 8
"""The shortest value that counts as a secret. Shorter values of such variables are words like `true`."""


def refuse_credentials(texts: Iterable[tuple[str, str]]) -> None:
    """Refuse a password or token in a URL, and the value of an environment variable that is named like one.

    Args:
        texts: pairs of a key and what was given for it.

    Raises:
        ValueError: naming the key and not the value.
    """
    of_environment = {
        value: name for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _MIN_LENGTH
    }
    for key, text in texts:
        what = "a password or token in a URL" if _IN_URL.search(text) else ""
        for value, name in of_environment.items():
            if value in text:
                what = f"the value of the environment variable {name}"
        if what:
            raise ValueError(
                f"{key} holds {what}, and everything that is configured is recorded; leave it out: libraries read "
                f"credentials from the environment or from ~/.netrc themselves"
            )
