"""The settings that clients and hosts have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from concurrent_futures_cluster import _calls

if TYPE_CHECKING:
    import os
    from typing import Any


def bytes_of_key(key: str | bytes | None) -> bytes | None:
    """Return a key as bytes."""
    if isinstance(key, str):
        key = key.encode()
    if key is not None and not key:
        raise ValueError("key must not be empty")
    return key


def settings(
    url: str | None,
    queue: str | None,
    key: str | bytes | None,
    insecure: bool,
    token: str | None,
    credentials: str | os.PathLike[str] | None,
    nkey: str | None,
    tls: str | os.PathLike[str] | None,
    tag: str | None,
    lease: float | None,
    object_store: str | None = None,
) -> dict[str, Any]:
    """Return the settings that clients and hosts have in common, as the native part takes them."""
    return {
        "url": url,
        "queue": queue,
        "key": bytes_of_key(key),
        "insecure": insecure,
        "token": token,
        "credentials": credentials,
        "nkey": nkey,
        "tls": tls,
        "tag": tag,
        "lease": lease,
        "object_store": object_store,
        "environment": _calls.environment(),
    }
