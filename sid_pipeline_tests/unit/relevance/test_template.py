"""The template of judged texts: the embedder's own, without the size that labels do not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from sid_pipeline.assets.relevance import _template
from sid_pipeline.settings import load_settings


@pytest.mark.parametrize(
    ("parts", "left"),
    [
        (["{title}", "{brand}"], ["{title}", "{brand}"]),
        (["{title}, {size}"], ["{title}"]),
        (["{brand} {title} ({size})", "{size}"], ["{brand} {title}"]),
        (["{size}, {title}"], ["{title}"]),
        (["{title} - {size} - {brand}"], ["{title} - {brand}"]),
        (["{title} ({size}, {brand})"], ["{title} ({brand})"]),
        (["Size: {size}", "by {brand}"], ["by {brand}"]),
    ],
)
def test_only_the_size_is_left_out(tmp_path: Path, parts: list[str], left: list[str]) -> None:
    file = tmp_path / "sid.toml"
    file.write_text(f"[source]\nproducts = 'p.csv'\n[embedders.esci]\ntemplate = {parts!r}\n")
    assert _template(load_settings(file, env={})) == left
