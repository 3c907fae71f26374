"""The Hugging Face hub, with errors that say what to do, and the folder of what is made from it."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csm_ggml.errors import ModelFormatError, ModelNotFoundError

CACHE_VARIABLE = "CSM_GGML_CACHE"
# How long the hub may take to answer.
HUB_SECONDS = 15.0


def user_cache() -> Path:
    """The folder for files that this package makes for itself."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    variable = {"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_CACHE_HOME")
    if variable and (folder := os.environ.get(variable)):
        return Path(folder) / "csm-ggml"
    if (home := _home()) is None:
        # Not one that other users could have made beforehand.
        return Path(tempfile.gettempdir()) / f"csm-ggml-{getattr(os, 'getuid', int)()}"
    below = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
    return home / below / "csm-ggml"


def _home() -> Path | None:
    """The user's folder; None where there is none, as for a user without an entry."""
    try:
        return Path.home()
    except RuntimeError:
        return None


@dataclass(frozen=True)
class Hub:
    """Fetches from the Hugging Face hub; its slow library is imported only when needed.

    Attributes:
        revision: Branch, tag or commit.
        local_files_only: Never use the network.
        cache_dir: The hub cache; default is huggingface_hub's.
        token: Hub access token; default is the one of `hf auth login`.
    """

    revision: str | None = None
    local_files_only: bool = False
    cache_dir: str | os.PathLike[str] | None = None
    token: str | bool | None = None

    def files(self, repository: str, names: Sequence[str]) -> tuple[Path, ...]:
        """Files of a repository, from the cache or the network.

        As one snapshot: without a network, the hub library then waits for it once and not per file.
        """
        folder = self.snapshot(repository, list(names))
        for name in names:
            if not (folder / name).exists():
                raise ModelNotFoundError(
                    f"{repository}/{name}: the repository has no such file, or it is not in the "
                    "local cache and the Hugging Face hub could not be reached"
                )
        return tuple(folder / name for name in names)

    def snapshot(self, repository: str, patterns: list[str], *, local: bool | None = None) -> Path:
        """The folder that holds a repository's files, those of the patterns fetched.

        Args:
            repository: "owner/name".
            patterns: Of names, with `*`.
            local: Never use the network; as the attribute if left out.

        Raises:
            ModelNotFoundError: If they cannot be fetched.
        """
        local = self.local_files_only if local is None else local
        with HubErrors(repository):
            return self._snapshot(repository, patterns, local)

    def _snapshot(self, repository: str, patterns: list[str], local: bool) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        def get(local: bool) -> Path:
            return Path(
                snapshot_download(
                    repository,
                    allow_patterns=patterns,
                    local_files_only=local,
                    **self._options(),
                )
            )

        try:
            return get(local)
        except OSError as error:
            if local or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC):
                raise
            # The cache cannot be written; what is in it will do.
            try:
                return get(True)
            except LocalEntryNotFoundError:
                raise error from None

    def names(self, repository: str) -> list[str] | None:
        """Names in the repository; None if the hub is not to be asked or cannot be reached."""
        if self.local_files_only:
            return None
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        with HubErrors(repository):
            try:
                # Of the ways to list, the one that asks once: others wait and ask again.
                api = HfApi(token=self.token)
                found = api.model_info(repository, revision=self.revision, timeout=HUB_SECONDS)
                return [file.rfilename for file in found.siblings or ()]
            except HfHubHTTPError:
                raise
            except (OfflineModeIsEnabled, OSError):
                return None
            except Exception as error:
                # The HTTP client under huggingface_hub has changed between its versions, and so
                # have its errors.
                if "Connect" in type(error).__name__ or "Timeout" in type(error).__name__:
                    return None
                raise

    def _options(self) -> dict[str, Any]:
        from huggingface_hub.constants import HF_HUB_CACHE

        cache = self.cache_dir
        if cache is None and HF_HUB_CACHE.startswith("~"):  # without a home, it is the name's
            cache = user_cache() / "hub"
        return {
            "revision": self.revision,
            "cache_dir": cache,
            "token": self.token,
        }


class HubErrors:
    """Turns the hub library's many errors into one that says what to do."""

    def __init__(self, repository: str) -> None:
        self._what = repository

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(
            error, ModelNotFoundError | ModelFormatError
        ):
            return
        from huggingface_hub import errors

        if isinstance(error, errors.GatedRepoError):
            reason = "access is gated: accept its terms on huggingface.co and run `hf auth login`"
        elif isinstance(error, errors.RepositoryNotFoundError):
            reason = (
                "no such file or folder here, and no such repository on the Hugging Face hub (or "
                "it is private: run `hf auth login`)"
            )
        elif isinstance(error, errors.RevisionNotFoundError):
            reason = "the repository has no such revision"
        elif isinstance(error, errors.LocalEntryNotFoundError):
            reason = (
                "no such file or folder here, not in the local cache, and the Hugging Face hub was "
                "not asked or could not be reached; "
                "check the path or the network, or download the files elsewhere and give their path"
            )
        elif isinstance(error, errors.HFValidationError):
            reason = str(error)
        elif isinstance(error, OSError):
            reason = f"cannot be fetched: {error}"
        else:
            return
        raise ModelNotFoundError(f"{self._what}: {reason}") from error
