"""Crash-safe checkpoints of a training run: one safetensors file, replaced atomically.

Belongs here: flattening model, optimiser and counters into tensors and JSON, and back. Never pickle.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sid_pipeline.rqvae.errors import CheckpointError

FILE = "checkpoint.safetensors"


def write(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and a JSON state as one file: a reader finds the old one or the new one, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    part = folder / (FILE + ".part")
    with open(part, "wb") as f:
        f.write(save(packed, {"state": json.dumps(state)}))
        f.flush()
        os.fsync(f.fileno())
    os.replace(part, folder / FILE)


def read(folder: Path, run: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of the checkpoint in `folder`, or None where there is none.

    run: what identifies the run (settings and data hashes); a checkpoint of another run is refused by the
    name of the first entry that differs.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as f:
            state = json.loads((f.metadata() or {})["state"])
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, KeyError, ValueError) as e:
        raise CheckpointError(f"{path} cannot be read ({e}); delete it to train from the start.") from e
    for name, value in run.items():
        there = state["run"].get(name)
        if there != value and name == "torch":
            raise CheckpointError(
                f"{path} was written by torch {there}; this is torch {value}, which would go on to another codebook: "
                "delete that file to train from the start, or finish with the torch that began."
            )
        if there != value:
            raise CheckpointError(
                f"{path} belongs to another run ({name} was {there!r}, now {value!r}); "
                "use another checkpoint folder, or delete this one to train from the start."
            )
    return tensors, state


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors."""
    return {
        f"optimiser.{i}.{name}": value
        for i, entry in optimiser.state_dict()["state"].items()
        for name, value in entry.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` took out."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, i, name = key.split(".", 2)
            state.setdefault(int(i), {})[name] = value
    whole = optimiser.state_dict()
    whole["state"] = state
    optimiser.load_state_dict(whole)
