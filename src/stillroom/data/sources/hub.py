"""hf://: a revision of a repository on a Hugging Face hub; HF_ENDPOINT names a mirror, HF_TOKEN who asks."""

import fnmatch
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stillroom.data.sources.address import HubRepository
from stillroom.data.sources.disk import ensure_free, inside
from stillroom.errors import InputError, TryAgain

CHECKPOINT_FILES = (
    "*.json", "*.safetensors", "*.txt", "*.model", "tokenizer*", "1_Pooling/*", "README.md", "LICENSE*",
)  # fmt: skip
"""What is taken of a whole repository: no pickles, no copies for other runtimes (onnx/, openvino/)."""


def version(address: HubRepository, what: str) -> str:
    """The commit that a branch or tag names now."""
    with _told(address, what):
        return str(_info(address).sha)


def download(address: HubRepository, scratch: Path, what: str) -> Path:
    """Download one file, the files below a path, or a checkpoint's files to `scratch`."""
    where = f"{what}: {address.uri}"
    with _told(address, what):
        info = _info(address)
        sizes = _wanted(address, {file.rfilename: file.size or 0 for file in info.siblings or ()}, what)
        ensure_free(scratch, sum(sizes.values()), where)
        into = Path(tempfile.mkdtemp(dir=scratch))
        for name in sizes:
            inside(into, name, where)
            _api().hf_hub_download(
                address.repository, name, repo_type=address.kind, revision=info.sha, local_dir=into / "all"
            )
    whole = into / "all"
    target = into / address.name
    if address.path:
        (whole / address.path).rename(target)
    else:
        target.mkdir()
        for name in sizes:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (whole / name).rename(target / name)
    return target


def _api() -> Any:
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def _info(address: HubRepository) -> Any:
    return _api().repo_info(address.repository, repo_type=address.kind, revision=address.revision, files_metadata=True)


def _wanted(address: HubRepository, sizes: dict[str, int], what: str) -> dict[str, int]:
    if address.path is None:
        wanted = [name for name in sizes if any(fnmatch.fnmatchcase(name, pattern) for pattern in CHECKPOINT_FILES)]
        wanted = [name for name in wanted if "/" not in name or name.startswith("1_Pooling/")]
    else:
        wanted = [name for name in sizes if name == address.path or name.startswith(f"{address.path}/")]
    if not wanted:
        missing = address.path or "file of a checkpoint"
        raise InputError(f"{what}: {address.uri}: the repository has no {missing} at this revision")
    return {name: sizes[name] for name in wanted}


@contextmanager
def _told(address: HubRepository, what: str) -> Iterator[None]:
    """Turn huggingface_hub's errors into ours."""
    from huggingface_hub import errors

    where = f"{what}: {address.uri}"
    unreachable: type[Exception] = errors.HfHubHTTPError.__bases__[
        0
    ]  # the HTTP library's own error: httpx's or httpx2's
    try:
        yield
    except errors.GatedRepoError as error:
        raise InputError(f"{where}: the repository is gated; accept its terms and set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{where}: the repository has no revision {address.revision}") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"{where}: no such {address.kind} repository, or it is private; set HF_TOKEN") from error
    except errors.RemoteEntryNotFoundError as error:
        raise InputError(f"{where}: the repository has no such file at this revision") from error
    except errors.OfflineModeIsEnabled as error:
        raise InputError(f"{where}: not fetched yet, and HF_HUB_OFFLINE forbids the network") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 429 or status >= 500:
            raise TryAgain(f"{where}: the hub answers {status}; try again later") from error
        raise InputError(f"{where}: the hub answers {status}") from error
    except (errors.LocalEntryNotFoundError, unreachable) as error:
        raise InputError(f"{where}: no network: the hub is not reachable; check HF_ENDPOINT") from error
    except errors.HFValidationError as error:
        raise InputError(f"{where}: {error}") from error
