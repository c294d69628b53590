"""A trained model that passed its gate, kept for good: an immutable folder of weights and a manifest beside it.

models/<name>-<hash>/        the model in sentence-transformers' folder format
models/<name>-<hash>.json    what it was made from, the gate's figures, SHA-256 of every file; written last
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sid_pipeline.files import digest, file_sha256, sync_folder, to_json, write_atomically


def publish_model(trained: Path, models: Path, name: str, made_from: dict[str, Any]) -> Path:
    """Move a trained model to where it stays, named by the hash of its files.

    Args:
        trained: the folder that `fine_tune` made, on the same disk; it is gone afterwards.
        models: folder of all published models.
        name: first part of its name.
        made_from: goes into the manifest.

    Returns:
        The folder. A crash leaves the trained folder, or the published one without a manifest; a rerun completes it.
    """
    files = {
        path.relative_to(trained).as_posix(): file_sha256(path) for path in sorted(trained.rglob("*")) if path.is_file()
    }
    folder = models / f"{name}-{digest(files, 12)}"
    if not folder.is_dir():
        models.mkdir(parents=True, exist_ok=True)
        os.rename(trained, folder)
        sync_folder(models)
    write_atomically(folder.with_name(f"{folder.name}.json"), to_json({**made_from, "files": files}))
    return folder
