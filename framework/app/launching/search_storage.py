"""`hydra.sweeper.storage=sqlite:///search.db`: where Optuna keeps its trials, so that a search can go on later."""

from __future__ import annotations

from typing import Any

from framework.config.quote import quote

KEY = "hydra.sweeper.storage"


def typed(override: str) -> str:
    """`override` with a database's URL as what `open_storage` makes of it; any other as it is."""
    key, _, value = override.partition("=")
    url = value.strip("'\"")
    if key.lstrip("+") != KEY or "://" not in url or url.startswith(("{", "redis")):
        return override
    node = {"_target_": f"{open_storage.__module__}.{open_storage.__qualname__}", "url": url}
    return f"{key}={quote(node)}"


def open_storage(url: str) -> Any:
    """Optuna's storage in the database at `url`, made if it does not exist.

    Optuna 2, the last one that Hydra's sweeper works with, was written for SQLAlchemy 1, where what is executed outside
    of a session is committed at once; SQLAlchemy 2 drops it unless the connection commits by itself.

    Raises:
        ValueError: it cannot be opened.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return RDBStorage(url, engine_kwargs={"isolation_level": "AUTOCOMMIT"})
    except (SQLAlchemyError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{KEY}={url} cannot be opened: {reason}; name a file, as sqlite:///search.db does") from error
