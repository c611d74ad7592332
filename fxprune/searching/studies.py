"""Optuna's studies and storages, opened so that workers may come, go, and be killed."""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fxprune.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import optuna

# Seconds: a worker that has not been heard of for so long is dead, and what it did is tried again.
HEARTBEAT, GRACE = 30, 90
RETRIES = 3
# Seconds that a proxy is waited for.
ANSWERS = 20
IDENTITY = "fxprune"


def require_optuna() -> Any:
    """The package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("a search needs optuna; write pip install 'fxprune[search]'") from error
    return optuna


def storage_of(storage: Any) -> Any:
    """Where trials are kept: Optuna's own object, or what a text names.

    Args:
        storage: None (memory), an Optuna storage, a database's URL (``sqlite:///search.db``), ``grpc://host:port``, or
            ``journal:///path``.

    Raises:
        InputError: nothing of these, or nothing that answers there.
        MissingExtraError: Optuna is not installed.
    """
    optuna = require_optuna()
    if storage is None or isinstance(storage, optuna.storages.BaseStorage):
        return storage
    if not isinstance(storage, str) or "://" not in storage:
        raise InputError(f"storage must be an Optuna storage or a URL, got {storage!r}; write sqlite:///search.db, "
                         "journal:///path/search.log or grpc://host:port")
    kind, _, rest = storage.partition("://")
    try:
        with warnings.catch_warnings():
            # Heartbeats and the proxy are called experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _OPENED.get(kind, _database)(optuna, storage, rest)
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise InputError(f"storage {storage!r} could not be opened: {type(error).__name__}: {words}") from error


def _journal(optuna: Any, storage: str, path: str) -> Any:
    from optuna.storages.journal import JournalFileBackend

    return optuna.storages.JournalStorage(JournalFileBackend(path))


def _proxy(optuna: Any, storage: str, address: str) -> Any:
    host, _, port = address.rpartition(":")
    proxy = optuna.storages.GrpcStorageProxy(host=host, port=int(port))
    proxy.wait_server_ready(timeout=ANSWERS)  # else the first trial finds that nobody is there
    return proxy


def _database(optuna: Any, storage: str, _: str) -> Any:
    """With heartbeats: without them a killed worker's trial is lost."""
    options = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else None
    return optuna.storages.RDBStorage(
        storage, engine_kwargs=options, heartbeat_interval=HEARTBEAT, grace_period=GRACE,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES))


_OPENED = {"journal": _journal, "grpc": _proxy}


def study_of(name: str | None, storage: Any, directions: Sequence[str], identity: Mapping[str, Any], sampler: Any,
             pruner: Any) -> "optuna.Study":
    """The study of that name in that storage, made where there is none.

    Args:
        identity: what the search is of, as JSON; a study of something else is refused.

    Raises:
        InputError: the study is of something else.
    """
    optuna = require_optuna()
    try:
        study = optuna.create_study(storage=storage_of(storage), study_name=name, sampler=sampler, pruner=pruner,
                                    directions=list(directions), load_if_exists=name is not None)
    except ValueError as error:
        raise InputError(f"the study cannot be opened as asked: {error}; give it another name with study=") from error
    there, here = study.user_attrs.get(IDENTITY), json.loads(json.dumps(identity))
    if there is None:
        study.set_user_attr(IDENTITY, here)
    elif there != here:
        key = next(key for key in {**there, **here} if there.get(key) != here.get(key))
        raise InputError(f"the study {study.study_name!r} was begun with {key}={_short(there.get(key))}, and this "
                         f"search has {_short(here.get(key))}; give it another name with study=")
    return study


def digest(value: object) -> str:
    """A short name for JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
