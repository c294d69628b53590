"""The embedder over tiny models: vectors by hand, what identifies it, and what is refused."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from sid_pipeline.embedding.model import Embedder, ModelError, embedder_id
from sid_pipeline.settings import EmbedderSettings, SettingsError, load_settings

TEXTS = ["rye bread", "white bread and milk of a cheese", "milk", "organic whole milk", "cheese", "dark rye loaf"]
DOCUMENT = "title: none | text: "


def settings(model: Path | str, **more: Any) -> EmbedderSettings:
    return EmbedderSettings(model=str(model), device="cpu", **more)


def by_hand(folder: Path, texts: list[str], prompt: str, dimension: int | None) -> np.ndarray:
    """The forward pass written out, one text at a time: no padding, no library pooling."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    dense = [load_file(folder / name / "model.safetensors")["linear.weight"] for name in ("2_Dense", "3_Dense")]
    rows = []
    for text in texts:
        with torch.inference_mode():
            states = encoder(**tokenizer(prompt + text, return_tensors="pt")).last_hidden_state[0]
        row = states.mean(dim=0).numpy()
        for weights in dense:
            row = weights.numpy() @ row
        row = row / np.linalg.norm(row)
        row = row[:dimension]
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


@pytest.mark.parametrize("dimension", [None, 8])
@pytest.mark.parametrize("prompt", ["", DOCUMENT])
def test_gemma_prompt_truncation_and_unit_length_are_those_computed_by_hand(tiny_gemma, tmp_path, prompt, dimension):
    embedder = Embedder.load(settings(tiny_gemma, prompt=prompt, dimension=dimension, batch_tokens=24), tmp_path)
    vectors = embedder.encode(TEXTS)
    assert vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), dimension or 32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.allclose(vectors, by_hand(tiny_gemma, TEXTS, prompt, dimension), atol=1e-5)


def test_the_prompt_changes_the_vectors(tiny_gemma, tmp_path):
    plain = Embedder.load(settings(tiny_gemma), tmp_path).encode(TEXTS)
    prompted = Embedder.load(settings(tiny_gemma, prompt=DOCUMENT), tmp_path).encode(TEXTS)
    assert ((plain * prompted).sum(axis=1) < 0.999).all()


def test_bfloat16_runs_in_bfloat16_and_has_unit_rows(tiny_gemma, tmp_path):
    embedder = Embedder.load(settings(tiny_gemma, dtype="bfloat16"), tmp_path)
    assert {str(p.dtype) for p in embedder.model.parameters()} == {"torch.bfloat16"}
    vectors = embedder.encode(TEXTS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    exact = Embedder.load(settings(tiny_gemma), tmp_path).encode(TEXTS)
    assert ((vectors * exact).sum(axis=1) > 0.99).all() and not np.array_equal(vectors, exact)


def test_float16_is_refused_with_the_reason(tmp_path):
    file = tmp_path / "sid.toml"
    file.write_text('[source]\nproducts = "p.csv"\n[embedders.gemma]\ndtype = "float16"\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"embedders\.gemma\.dtype.*float16 is refused.*NaN.*float32"):
        load_settings(file, {})


def test_a_dimension_beyond_the_models_is_refused(tiny_bert, tmp_path):
    with pytest.raises(ModelError, match="32 values, fewer than the 64"):
        Embedder.load(settings(tiny_bert, dimension=64), tmp_path)


def test_batches_and_order_do_not_change_vectors(tiny_bert, tmp_path):
    whole = Embedder.load(settings(tiny_bert, batch_tokens=10_000), tmp_path)
    small = Embedder.load(settings(tiny_bert, batch_tokens=8), tmp_path)
    expected = whole.model.encode(TEXTS, normalize_embeddings=True)
    assert np.allclose(whole.encode(TEXTS), expected, atol=1e-6)
    assert np.allclose(small.encode(TEXTS[::-1])[::-1], expected, atol=1e-6)
    counted = small.encode_counted(TEXTS)
    assert counted.tokens <= counted.padded < whole.encode_counted(TEXTS).padded
    assert small.encode([]).shape[0] == 0


def test_texts_are_cut_off_at_max_tokens(tiny_bert, tmp_path):
    embedder = Embedder.load(settings(tiny_bert, max_tokens=8), tmp_path)
    a, b = embedder.encode(["rye " * 8 + "milk", "rye " * 8 + "cheese " * 20])
    assert np.allclose(a, b, atol=1e-6)


def test_the_id_follows_all_that_decides_a_vector_and_nothing_else(tiny_bert, tiny_gemma, tmp_path):
    base = settings(tiny_bert)
    changed = [
        settings(tiny_gemma),
        settings(tiny_bert, prompt="query: "),
        settings(tiny_bert, dimension=8),
        settings(tiny_bert, dtype="bfloat16"),
        settings(tiny_bert, max_tokens=16),
        settings(tiny_bert, template=["{title}", "{brand}"]),
        settings(tiny_bert, text="cleaned"),
        settings(tiny_bert, say_once=True),
    ]
    ids = [embedder_id(one, tmp_path) for one in (base, *changed)]
    assert len(set(ids)) == len(ids)
    assert embedder_id(settings(tiny_bert, batch_tokens=99), tmp_path) == ids[0]
    assert embedder_id(base.model_copy(update={"device": "cuda"}), tmp_path) == ids[0]


def test_the_id_of_earlier_settings_stays_what_it_was(tmp_path):
    """Served releases pin ids: a new setting must not rename what was made before there was one."""
    old = EmbedderSettings(model="google/embeddinggemma-300m", revision="abc")
    assert embedder_id(old, tmp_path) == "embeddinggemma-300m-c45131d6365e"


def test_the_id_follows_the_weights(tiny_bert, tmp_path):
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(tiny_bert, copy)
    before = embedder_id(settings(copy), tmp_path)
    assert before == embedder_id(settings(tiny_bert), tmp_path)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    assert embedder_id(settings(copy), tmp_path) != before


def test_a_hub_model_needs_a_pinned_revision(tmp_path):
    with pytest.raises(ModelError, match=r"google/embeddinggemma-300m.*revision"):
        embedder_id(settings("google/embeddinggemma-300m"), tmp_path)
    pinned = [embedder_id(settings("google/embeddinggemma-300m", revision=r), tmp_path) for r in ("abc", "def")]
    assert len(set(pinned)) == 2 and all(identity.startswith("embeddinggemma-300m-") for identity in pinned)


class _GatedHub(BaseHTTPRequestHandler):
    """Answers as the hub does for a gated model without access."""

    asked: ClassVar[list[str]] = []

    def _refuse(self) -> None:
        _GatedHub.asked.append(self.path)
        body = json.dumps({"error": "Access to model is restricted"}).encode()
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to model google/embeddinggemma-300m is restricted.")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = _refuse

    def log_message(self, *args: Any) -> None:
        pass


def test_a_gated_model_without_access_says_how_to_get_it(tmp_path, monkeypatch):
    import huggingface_hub.constants as hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), _GatedHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(
        hub, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.ENDPOINT}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "cache"))
    try:
        with pytest.raises(ModelError, match=r"licence.*HF_TOKEN.*embedders\.<name>\.model"):
            Embedder.load(
                settings("google/embeddinggemma-300m", revision="57c266a740f537b4dc058e1b0cda161fd15afa75"), tmp_path
            )
    finally:
        server.shutdown()
    asked = [path for path in _GatedHub.asked if "embeddinggemma-300m" in path]
    assert asked and all("57c266a740f537b4dc058e1b0cda161fd15afa75" in path for path in asked if "/resolve/" in path)
