"""Stores in Azure Storage by URL: `azure:`, with the account in the settings that Azure's own hosts read."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.errors import StoreError, StoreUnusable
from perdure.store.log.account import SETTING, account_of
from perdure.store.log.azure import AzureAbout, AzureService, tables_of
from perdure.store.log.copying import write_copy
from perdure.store.log.port import Unknown
from perdure.store.log.replica import FILE, boot_id
from perdure.store.log.requests import Requests
from perdure.store.log.snapshots import Document
from perdure.store.log.store import LogStore, Terms
from perdure.store.sqlite.lock import read_server_file

if TYPE_CHECKING:
    from perdure.store.encryption import Encryption
    from perdure.store.log.account import Account
    from perdure.store.sqlite.lock import ServerInfo

SCHEME: Final = "azure:"
_TIMEOUT: Final = 10.0  # seconds


def account_at(url: str) -> Account:
    """The account of `azure:`, or of `azure:NAME`, where NAME is the setting with the connection string."""
    return account_of(os.environ, url.removeprefix(SCHEME) or SETTING)


def open_log_store(
    url: str, hub: str, encryption: Encryption | None, *, directory: str = "", terms: Terms | None = None
) -> LogStore:
    """The store of an URL; `directory` is where replicas are, by default in the user's cache."""
    where = directory or default_directory()
    os.makedirs(where, mode=0o700, exist_ok=True)
    return LogStore(
        AzureService(account_at(url), hub), hub, encryption, directory=where, terms=terms or Terms()
    )


def default_directory() -> str:
    """The folder of replicas in this user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return os.environ.get("PERDURE_REPLICA_DIR") or str(Path(cache) / "perdure" / "replicas")


def hubs_at(url: str) -> list[str]:
    """The names of the hubs in the account. Raises StoreError if it does not answer."""
    account = account_at(url)
    with closing(Requests(account.tables, account.sign_table, timeout=_TIMEOUT)) as requests:
        try:
            found = [AzureAbout(requests, table).read() for table in tables_of(requests)]
        except Unknown as error:
            raise StoreError(f"the storage account {account.name} does not answer: {error}") from error
    return sorted(_hub_of(document[0], account) for document in found if document is not None)


def copy_to_file(url: str, hub: str, path: str, at: datetime | None) -> None:
    """Write the hub to a new SQLite file, as it is, or as it was at a moment."""
    with closing(AzureService(account_at(url), hub)) as service:
        write_copy(service, hub, path, at=None if at is None else round(at.timestamp() * 1e6))


def server_of(url: str, hub: str) -> ServerInfo | None:
    """The engine on this machine that holds the hub, if its replica is in the usual folder."""
    service = AzureService(account_at(url), hub)
    return read_server_file(os.path.join(default_directory(), service.directory, boot_id(), FILE))


def _hub_of(document: bytes, account: Account) -> str:
    try:
        return msgspec.json.decode(document, type=Document).hub
    except msgspec.MsgspecError as error:
        raise StoreUnusable(f"a table of {account.name} is no hub of perdure: {error}") from error


def reach_account(url: str) -> None:
    """Whether the account answers. Raises StoreError, and StoreUnusable if it refuses this caller."""
    account = account_at(url)
    with closing(Requests(account.tables, account.sign_table, timeout=_TIMEOUT)) as requests:
        try:
            tables_of(requests)
        except Unknown as error:
            raise StoreError(f"the storage account {account.name} does not answer: {error}") from error


__all__ = ["SCHEME", "copy_to_file", "hubs_at", "open_log_store", "reach_account", "server_of"]
