"""Files of a checkpoint, wherever it lies: a folder here, or a repository of the hub."""

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

from cacovid.errors import CheckpointError

Find = Callable[[str], Path | None]


def finder(source: str, argument: str, advice: str) -> Find:
    """A function from a file name to that file of `source`, a folder or a hub id; None where the source lacks it.

    Raises CheckpointError, which names `argument` and ends with `advice`, for what is neither and where the hub fails.
    """
    folder = Path(source)
    if folder.is_dir():
        return lambda name: folder / name if (folder / name).is_file() else None
    if folder.is_absolute() or source.count("/") != 1:
        raise CheckpointError(f"{argument}={source!r} is no folder and no hub id like owner/name; {advice}")

    def download(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(source, name))
        except EntryNotFoundError:
            return None
        except (OSError, HfHubHTTPError, HFValidationError) as error:
            raise CheckpointError(
                f"{argument}={source!r} is no folder here and could not be read from the hub: {error}; {advice}"
            ) from error

    return download
