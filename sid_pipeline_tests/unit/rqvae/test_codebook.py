from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sid_pipeline.rqvae import Codebook, CodebookError

D, LATENT, K = 6, 4, 5
CELLS = [2, 1, 3]  # of each prototype
P = len(CELLS)


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """A codebook with three snapped levels."""
    rng = np.random.default_rng(seed)
    shapes = {
        "mean": (D,),
        "encoder.linear": (D, LATENT),
        "encoder.weight.0": (D, 7),
        "encoder.bias.0": (7,),
        "encoder.weight.1": (7, LATENT),
        "encoder.bias.1": (LATENT,),
        "prototype.keys": (LATENT, P),
        "prototype.offset": (P,),
        "prototype.readout": (P, D),
        "cell.means": (sum(CELLS), LATENT),
        "codewords": (4, K, LATENT),
        "decoder.linear": (LATENT, D),
        "decoder.weight.0": (LATENT, 7),
        "decoder.bias.0": (7,),
        "decoder.weight.1": (7, D),
        "decoder.bias.1": (D,),
        "readout": (1, K, D),
    }
    made = {name: rng.standard_normal(shape).astype(np.float32) * 0.5 for name, shape in shapes.items()}
    return {
        **made,
        "prototype.paths": np.array([[0, 3], [4, 3], [0, 1]], np.int32),
        "cell.start": np.array([0, 2, 3, 6], np.int32),
        "cell.codes": np.array([0, 4, 2, 1, 3, 0], np.int32),
    }


CONFIG = {"snapped_levels": 3, "margin_bound": 1e-5}


@pytest.fixture
def book() -> Codebook:
    return Codebook(arrays(), CONFIG, {"note": "made by hand"}, [{"step": 1, "loss": 0.5}, {"step": 2, "held": 0.25}])


def by_hand(a: dict[str, np.ndarray], x: np.ndarray) -> tuple[list[int], float]:
    """The module docstring's formulas for one vector, in double precision."""
    a = {name: value.astype(np.float64) if value.dtype == np.float32 else value for name, value in a.items()}
    c = x - a["mean"]
    hidden = np.maximum(c @ a["encoder.weight.0"] + a["encoder.bias.0"], 0)
    z = c @ a["encoder.linear"] + hidden @ a["encoder.weight.1"] + a["encoder.bias.1"]
    k = int((z @ a["prototype.keys"] + a["prototype.offset"]).argmax())
    cells = range(a["cell.start"][k], a["cell.start"][k + 1])
    j = min(cells, key=lambda cell: float(((z - a["cell.means"][cell]) ** 2).sum()))
    rest = z - a["cell.means"][j]
    last = int(((rest - a["codewords"][3]) ** 2).sum(1).argmin())
    codes = [*a["prototype.paths"][k].tolist(), int(a["cell.codes"][j]), last]
    return codes, float(((rest - a["codewords"][3][last]) ** 2).sum())


def test_quantise_follows_the_formulas(book: Codebook) -> None:
    x = np.random.default_rng(1).standard_normal((50, D)).astype(np.float32)
    q = book.quantise(x)
    assert q.codes.dtype == np.int32
    for i in range(50):
        codes, distance = by_hand(arrays(), x[i].astype(np.float64))
        assert q.codes[i].tolist() == codes
        assert q.distance[i] == pytest.approx(distance, rel=1e-4)
    assert (q.margin >= 0).all()


def test_decode_is_decoder_of_what_the_codes_stand_for_plus_readout(book: Codebook) -> None:
    a = arrays()
    codes = np.array([[0, 3, 4, 2], [0, 1, 3, 0], [4, 3, 2, 1]])  # cells 1, 4 and 2 of prototypes 0, 2 and 1
    q = a["cell.means"][[1, 4, 2]] + a["codewords"][3][codes[:, 3]]
    np.testing.assert_allclose(book.quantised(codes), q, rtol=1e-6)
    np.testing.assert_allclose(book.quantised(codes[:, :3]), a["cell.means"][[1, 4, 2]])
    h = np.maximum(q @ a["decoder.weight.0"] + a["decoder.bias.0"], 0)
    want = a["mean"] + q @ a["decoder.linear"] + h @ a["decoder.weight.1"] + a["decoder.bias.1"]
    want = want + a["prototype.readout"][[0, 2, 1]] + a["readout"][0][codes[:, 3]]
    np.testing.assert_allclose(book.decode(codes), want, rtol=1e-4, atol=1e-5)


def test_codes_that_no_product_takes_are_decoded_by_their_codewords(book: Codebook) -> None:
    words = arrays()["codewords"]
    strange = np.array([[1, 1, 1, 1], [0, 3, 3, 0]])  # no such prototype; no such cell of prototype 0
    want = sum(words[level][strange[:, level]] for level in range(4))
    np.testing.assert_allclose(book.quantised(strange), want, rtol=1e-5)
    np.testing.assert_allclose(book.quantised(strange[:, :2]), words[0][[1, 0]] + words[1][[1, 3]], rtol=1e-5)
    assert np.isfinite(book.decode(strange)).all()


def test_every_product_is_coded_relative_to_what_its_prefix_decodes_to(book: Codebook) -> None:
    q = book.quantise(np.random.default_rng(8).standard_normal((200, D)).astype(np.float32))
    x = np.random.default_rng(8).standard_normal((200, D)).astype(np.float32)
    gap = book.latent(x) - book.quantised(q.codes)
    np.testing.assert_allclose((gap**2).sum(1), q.distance, rtol=1e-4)


def test_codewords_encode_to_themselves() -> None:
    """With an identity encoder and far-apart codewords, encoding what codes stand for gives the codes."""
    words = np.stack([np.eye(4, dtype=np.float32)[[0, 1, 2, 3]] * s for s in (1000, 100, 10, 1)])
    eye, zero = np.eye(4, dtype=np.float32), np.zeros((4, 4, 4), np.float32)
    flat = {
        "mean": np.zeros(4, np.float32),
        "encoder.linear": eye,
        "decoder.linear": eye,
        "codewords": words,
        "readout": zero,
    }
    book = Codebook(flat, {**CONFIG, "snapped_levels": 0})
    codes = np.stack(np.meshgrid(*[np.arange(4)] * 4, indexing="ij"), -1).reshape(-1, 4)
    np.testing.assert_array_equal(book.encode(book.decode(codes)), codes)


def test_codes_do_not_depend_on_batch_or_order(book: Codebook) -> None:
    x = np.random.default_rng(2).standard_normal((2500, D)).astype(np.float32)
    whole = book.encode(x)
    order = np.random.default_rng(3).permutation(2500)
    np.testing.assert_array_equal(book.encode(x[order]), whole[order])
    np.testing.assert_array_equal(np.concatenate([book.encode(part) for part in np.array_split(x, 37)]), whole)
    np.testing.assert_array_equal(np.concatenate([book.encode(x[i : i + 1]) for i in range(100)]), whole[:100])


def test_ties_go_to_the_lowest_index() -> None:
    a = arrays()
    a["codewords"][:, 3] = a["codewords"][:, 1]
    a["prototype.keys"][:, 2], a["prototype.offset"][2] = a["prototype.keys"][:, 0], a["prototype.offset"][0]
    a["cell.means"][1] = a["cell.means"][0]
    codes = Codebook(a, CONFIG).encode(np.random.default_rng(4).standard_normal((400, D)))
    assert (codes[:, 3] == 1).any() and not (codes[:, 3] == 3).any()
    paths = {tuple(row) for row in codes[:, :3].tolist()}
    assert paths == {(0, 3, 0), (4, 3, 2)}, "never the third prototype, never the second cell of the first"


def test_rows_near_a_border_are_computed_in_double(book: Codebook) -> None:
    x = np.random.default_rng(5).standard_normal((3000, D)).astype(np.float32)
    sure = Codebook(arrays(), {**CONFIG, "margin_bound": float("inf")})
    wild = Codebook(arrays(), {**CONFIG, "margin_bound": -1.0})
    np.testing.assert_array_equal(book.encode(x), sure.encode(x))
    close = wild.quantise(x).margin - sure.quantise(x).margin
    assert np.abs(close).max() < CONFIG["margin_bound"]


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((3, D + 1)), rf"takes vectors of shape \(N, {D}\)"),
        (np.zeros(D), "takes vectors"),
        (np.where(np.arange(3 * D).reshape(3, D) == D + 2, np.nan, 0), "Row 1 holds NaN or Inf"),
    ],
)
def test_unusable_vectors_are_refused(book: Codebook, x: np.ndarray, words: str) -> None:
    with pytest.raises(CodebookError, match=words):
        book.encode(x)


def test_no_rows_give_no_codes(book: Codebook) -> None:
    assert book.encode(np.zeros((0, D), np.float32)).shape == (0, 4)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        ([[0, 0, 0, K]], r"lie in 0\.\.4; got 0\.\.5"),
        ([[0, 0, -1, 0]], "lie in"),
        ([[0.0] * 4], "integers"),
        ([[0, 1]], "all 4 codes"),
    ],
)
def test_unusable_codes_are_refused(book: Codebook, codes: list, words: str) -> None:
    with pytest.raises(CodebookError, match=words):
        book.decode(codes)


def test_saved_and_loaded_it_is_the_same(book: Codebook, tmp_path: Path) -> None:
    book.save(tmp_path / "book")
    again = Codebook.load(tmp_path / "book")
    x = np.random.default_rng(6).standard_normal((20, D))
    assert again.id == book.id
    assert again.manifest["note"] == "made by hand"
    assert again.history == book.history
    np.testing.assert_array_equal(again.encode(x), book.encode(x))
    assert pickle.loads(pickle.dumps(book)).id == book.id
    assert sorted(p.name for p in (tmp_path / "book").iterdir()) == [
        "codebook.safetensors",
        "config.json",
        "history.csv",
        "manifest.json",
    ]


def test_the_id_changes_with_any_number(book: Codebook) -> None:
    a = arrays()
    a["readout"][0, 4, 5] += 1e-3
    assert Codebook(a, CONFIG).id != book.id
    assert Codebook(arrays(), {**CONFIG, "margin_bound": 2e-5}).id != book.id


def test_a_folder_holds_one_codebook_for_ever(book: Codebook, tmp_path: Path) -> None:
    book.save(tmp_path)
    before = (tmp_path / "manifest.json").stat().st_mtime_ns
    book.save(tmp_path)
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(CodebookError, match="already holds codebook"):
        Codebook(arrays(1), CONFIG).save(tmp_path)


@pytest.mark.parametrize("name", ["codebook.safetensors", "config.json", "history.csv", "manifest.json"])
def test_a_missing_or_changed_file_is_named(book: Codebook, tmp_path: Path, name: str) -> None:
    book.save(tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:-3] + b"!" + data[-2:])
    with pytest.raises(CodebookError, match=name):
        Codebook.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CodebookError, match=f"{name} cannot be read"):
        Codebook.load(tmp_path)


def test_a_later_format_is_refused(book: Codebook, tmp_path: Path) -> None:
    book.save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(CodebookError, match="format 99, this version reads 2"):
        Codebook.load(tmp_path)


def test_a_worker_needs_no_torch(book: Codebook, tmp_path: Path) -> None:
    book.save(tmp_path / "book")
    x = np.random.default_rng(7).standard_normal((10, D)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    script = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from sid_pipeline.rqvae import Codebook, TrainConfig, CollapsedCodebookError\n"
        "print(Codebook.load(sys.argv[1]).encode(np.load(sys.argv[2])).tolist())\n"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "book"), str(tmp_path / "x.npy")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        check=True,
    )
    assert json.loads(done.stdout) == book.encode(x).tolist()
