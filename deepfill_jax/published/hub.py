"""Downloads one file from Hugging Face; needs huggingface_hub."""

import shutil
from pathlib import Path

from deepfill_jax.errors import RunError, UsageError


def download(repository: str, file: str, unfinished: Path) -> None:
    """Downloads a file; interrupted downloads resume.

    Args:
        repository: OWNER/REPO.
        file: Path of the file in it.
        unfinished: The file to write.

    Raises:
        UsageError: huggingface_hub is not installed, or there is no such file.
        RunError: There is no connection.
    """
    address = f"hf://{repository}/{file}"
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise UsageError(
            f"{address} needs huggingface_hub: pip install 'deepfill_jax[hub]'."
        ) from error
    try:
        folder = unfinished.with_suffix(".hub")
        downloaded = Path(hf_hub_download(repository, file, local_dir=folder))
    except (errors.HfHubHTTPError, errors.HFValidationError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise UsageError(f"{address} cannot be downloaded: {reason}") from error
    except (OSError, errors.LocalEntryNotFoundError) as error:
        raise RunError(
            f"{address} cannot be downloaded, because Hugging Face cannot be reached "
            f"({error.__cause__ or error})."
        ) from error
    downloaded.replace(unfinished)
    shutil.rmtree(folder)
