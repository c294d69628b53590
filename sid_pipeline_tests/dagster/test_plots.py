"""The plots of the UI: each is a PNG that shows something, and says so where there is nothing to show."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from sid_pipeline.assets.plots import code_usage, loss_curves, share_by_level


def picture(markdown: str) -> np.ndarray:
    head, _, data = markdown.rstrip(")").partition("base64,")
    assert head.startswith("![") and "data:image/png" in head
    assert len(data) < 60_000, "metadata stays small"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_plots_are_small_pictures_with_content():
    history = [{"step": float(s), "loss": 1 / (s + 1), "contrastive": 2.0, "seconds": 0.1} for s in range(5)]
    for markdown in (
        loss_curves(history),
        code_usage([[3, 0, 1, 8] * 128] * 4),
        share_by_level({"this release": [0.9, 0.5, 0.2, None], "live": [0.8, 0.4, 0.1, 0.0]}),
    ):
        image = picture(markdown)
        assert image.ndim == 3 and np.unique(image.reshape(-1, image.shape[-1]), axis=0).shape[0] > 10


def test_nothing_to_draw_is_a_sentence():
    assert "too few steps" in loss_curves([{"step": 0.0, "loss": 1.0}])
    assert "no pair" in share_by_level({"this release": [None, None]})
