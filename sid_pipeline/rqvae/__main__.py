"""Train a codebook from a copied `training_set` folder, on a machine that has neither Spark nor Dagster.

    python -m sid_pipeline.rqvae TRAINING_SET OUTPUT [--set FIELD=VALUE ...] [--checkpoints FOLDER]

TRAINING_SET holds vectors.npy (N, d), which is memory-mapped, paths.npy (N, depth) and manifest.json, which has their
hashes; the codebook is written to OUTPUT/<its id>. A killed run that is started again goes on from its last
checkpoint. Needs numpy, torch, safetensors and tqdm.

Belongs here: reading that folder, parsing settings, exit codes.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sid_pipeline.rqvae.codebook import CodebookError
from sid_pipeline.rqvae.config import TrainConfig
from sid_pipeline.rqvae.errors import CheckpointError, TrainingError
from sid_pipeline.rqvae.gate import CollapsedCodebookError


class TrainingFolderError(ValueError):
    """The folder cannot be trained on; the message names the file and the mend."""


def read_folder(folder: Path) -> tuple[NDArray[Any], NDArray[Any] | None, dict[str, Any]]:
    """Vectors (N, d) and category paths (N, depth), both memory-mapped, and the manifest of a training set.

    The paths are None where no product has a category. Raises `TrainingFolderError` for a file that is missing or
    differs from what the manifest recorded.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        recorded = manifest["files"]
    except (OSError, ValueError, KeyError) as e:
        raise TrainingFolderError(f"{folder} is no finished training set ({e}); copy the whole folder again.") from e
    arrays = []
    for name in ("vectors.npy", "paths.npy"):
        try:
            with open(folder / name, "rb") as f:
                found = _sha256(f)
        except OSError as e:
            raise TrainingFolderError(f"{folder / name} cannot be read ({e.strerror}); copy it again.") from e
        if found != recorded.get(name):
            raise TrainingFolderError(f"{folder / name} differs from what manifest.json recorded; copy it again.")
        arrays.append(np.load(folder / name, mmap_mode="r", allow_pickle=False))
    vectors, paths = arrays
    return vectors, paths if manifest.get("categorised", 1) else None, manifest


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _setting(text: str) -> tuple[str, Any]:
    """FIELD=VALUE; a value that is no Python literal is taken as a word (device=cuda)."""
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form FIELD=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when a codebook was written, 1 with a sentence on stderr when not."""
    fields = "\n".join(f"  {name}: {text}" for name, text in TrainConfig.describe().items())
    parser = argparse.ArgumentParser(
        prog="python -m sid_pipeline.rqvae",
        description="Train a codebook from a training_set folder, without Spark and Dagster.",
        epilog=f"fields of --set:\n{fields}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("training_set", type=Path, help="folder with vectors.npy, paths.npy and manifest.json")
    parser.add_argument("output", type=Path, help="the codebook goes to a folder in here that is named by its id")
    parser.add_argument("--set", type=_setting, action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--checkpoints", type=Path, help="default: OUTPUT/checkpoints, removed at the end")
    options = parser.parse_args(arguments)

    from sid_pipeline.rqvae.progress import ProgressBar
    from sid_pipeline.rqvae.trainer import train

    checkpoints = options.checkpoints or options.output / "checkpoints"
    try:
        config = TrainConfig.from_dict(dict(options.set))
        vectors, paths, manifest = read_folder(options.training_set)
        codebook = train(
            vectors,
            paths,
            config,
            checkpoint_dir=checkpoints,
            progress=ProgressBar(),
            provenance={"training_set": manifest.get("id"), "pins": manifest.get("pins")},
        )
        folder = codebook.save(options.output / codebook.id)
    except (ValueError, CodebookError, TrainingError, CheckpointError, CollapsedCodebookError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    if options.checkpoints is None:
        shutil.rmtree(checkpoints, ignore_errors=True)
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
