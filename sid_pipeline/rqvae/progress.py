"""A terminal progress bar for `train(progress=...)`."""

from __future__ import annotations

from collections.abc import Mapping

from tqdm import tqdm


class ProgressBar:
    """Shows loss terms, items/s and time left; pass an instance as `progress`."""

    def __init__(self, description: str = "RQ-VAE") -> None:
        self._bar = tqdm(total=0, desc=description, unit="step")

    def __call__(self, row: Mapping[str, float]) -> None:
        """row: what `train` reports (see there)."""
        self._bar.total = int(row["steps"])
        self._bar.n = int(row["step"])
        names = ("loss", "reconstruction", "quantisation", "contrastive", "items_per_second", "seconds_left")
        self._bar.set_postfix({name: f"{row[name]:.4g}" for name in names if name in row}, refresh=True)
        if row["step"] >= row["steps"]:
            self._bar.close()
