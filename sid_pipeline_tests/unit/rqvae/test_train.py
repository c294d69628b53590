from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sid_pipeline.rqvae import Codebook, CollapsedCodebookError, TrainConfig, gate, train  # noqa: E402
from sid_pipeline.rqvae import initialise as init  # noqa: E402
from sid_pipeline.rqvae.checkpoint import FILE  # noqa: E402
from sid_pipeline.rqvae.errors import CheckpointError, TrainingError  # noqa: E402
from sid_pipeline.rqvae.yardsticks import near_duplicates, residual_kmeans_error  # noqa: E402
from sid_pipeline_tests.unit.rqvae.data import catalogue, quick  # noqa: E402


@pytest.fixture(scope="module")
def trained() -> Codebook:
    x, paths = catalogue()
    return train(x, paths, quick())


def test_training_yields_a_working_codebook(trained: Codebook) -> None:
    x, _ = catalogue()
    codes = trained.encode(x)
    assert codes.shape == (500, 4)
    error = ((x - trained.decode(codes)) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert error < 0.2
    assert trained.manifest["run"]["steps"] == 40
    assert min(trained.manifest["metrics"]["usage"]) > 0.9


def test_a_prefix_follows_the_taxonomy(trained: Codebook) -> None:
    x, paths = catalogue()
    first, leaf = trained.encode(x)[:, 0], paths[:, 1]
    known = leaf >= 0
    same = (first[known][:, None] == first[known][None, :]) & ~np.eye(known.sum(), dtype=bool)
    akin = leaf[known][:, None] == leaf[known][None, :]
    assert same[akin].mean() > 10 * same[~akin].mean()


@pytest.mark.parametrize("snapped", [0, 2, 3])
def test_the_numpy_codebook_equals_the_torch_model(snapped: int) -> None:
    from sid_pipeline.rqvae.trainer import _Run

    x, paths = catalogue()
    run = _Run(x, paths, quick(snapped_levels=snapped, steps=20), None, None)
    run.start()
    run.loop()
    book = run.finish({})
    with torch.no_grad():
        rows = run.data.take(np.arange(500))
        z = run.model.encode(rows)
        found = run.model.quantise(z)
        out = run.model.decode(found.q, found.prototype, found.codes) * run.data.scale + run.data.mean
    np.testing.assert_allclose(book.latent(x), z.numpy(), atol=1e-5)
    np.testing.assert_array_equal(book.encode(x), found.codes.numpy())
    np.testing.assert_allclose(book.quantised(found.codes.numpy()), found.q.numpy(), atol=1e-5)
    np.testing.assert_allclose(book.decode(found.codes.numpy()), out.numpy(), atol=1e-4)


def test_the_same_seed_gives_the_same_codebook(trained: Codebook) -> None:
    x, paths = catalogue()
    assert train(x, paths, quick()).id == trained.id
    assert train(x, paths, quick(seed=1)).id != trained.id


def test_the_caller_keeps_its_precision() -> None:
    before = torch.get_float32_matmul_precision()
    train(*catalogue(), quick())
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_scale_and_shift_of_the_vectors_change_no_code(trained: Codebook) -> None:
    x, paths = catalogue()
    other = train(8 * x + 1, paths, quick())
    assert (other.encode(8 * x + 1) == trained.encode(x)).all(axis=1).mean() > 0.95


def test_every_term_is_logged(trained: Codebook) -> None:
    logged = [row for row in trained.history if "loss" in row]
    assert [row["step"] for row in logged] == [20, 40]
    for row in logged:
        total = row["reconstruction"] + row["quantisation"] + 0.01 * row["contrastive"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)
        assert row["contrastive"] > 0
        assert sum(row[f"pairs {g}"] for g in ("same leaf", "sibling leaf", "further", "unrelated")) == pytest.approx(1)


def test_progress_is_called() -> None:
    x, paths = catalogue()
    rows = []
    train(x, paths, quick(), progress=rows.append)
    assert [r["step"] for r in rows] == [20, 40]
    assert all(r["steps"] == 40 and r["items_per_second"] > 0 and r["seconds_left"] >= 0 for r in rows)


SCRIPT = """
import os, signal, sys
from sid_pipeline.rqvae import checkpoint, train
from sid_pipeline_tests.unit.rqvae.data import catalogue, quick
folder, calls = sys.argv[1], int(sys.argv[2])
write, count = checkpoint.write, 0
def dying(*args):
    global count
    count += 1
    if count == calls:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*args)
checkpoint.write = dying
print(train(*catalogue(), quick(), checkpoint_dir=folder).id)
"""


def test_killed_at_any_time_it_resumes_to_the_same_codebook(trained: Codebook, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    first = subprocess.run([*command, "4"], env=env, capture_output=True, text=True)
    assert first.returncode == -signal.SIGKILL, first.stderr
    x, paths = catalogue()
    resumed = train(x, paths, quick(), checkpoint_dir=tmp_path)
    assert resumed.id == trained.id
    timed = {"items_per_second"}
    steps = [{k: v for k, v in row.items() if k not in timed} for row in resumed.history]
    assert steps == [{k: v for k, v in row.items() if k not in timed} for row in trained.history]


@pytest.mark.parametrize("at", [1, 13, 20, 39])
def test_stopped_at_a_step_it_resumes_to_the_same_codebook(trained: Codebook, tmp_path: Path, at: int) -> None:
    from sid_pipeline.rqvae.trainer import _Run

    class Stop(Exception):
        pass

    x, paths = catalogue()
    run = _Run(x, paths, quick(), tmp_path, None)
    run.start()
    inner = run._step

    def step() -> None:
        if run.state.step == at:
            raise Stop
        inner()

    run._step = step  # type: ignore[method-assign]
    with pytest.raises(Stop):
        run.loop()
    assert train(x, paths, quick(), checkpoint_dir=tmp_path).id == trained.id


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    x, paths = catalogue()
    train(x, paths, quick(steps=10), checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"another run \(TrainConfig.seed was 0, now 5\)"):
        train(x, paths, quick(steps=10, seed=5), checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"another run .embeddings was"):
        train(x * 2, paths, quick(steps=10), checkpoint_dir=tmp_path)
    (tmp_path / FILE).write_bytes(b"nothing of use")
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(x, paths, quick(steps=10), checkpoint_dir=tmp_path)


def test_a_checkpoint_of_another_torch_is_named_with_the_mend(tmp_path: Path) -> None:
    from sid_pipeline.rqvae import checkpoint

    checkpoint.write(tmp_path, {}, {"run": {"torch": "1.0"}})
    with pytest.raises(CheckpointError, match=rf"{FILE} was written by torch 1.0; this is torch 2.0.*delete that file"):
        checkpoint.read(tmp_path, {"torch": "2.0"})


def test_a_wall_budget_is_kept_and_its_steps_repeat_it() -> None:
    x, paths = catalogue()
    book = train(x, paths, quick(steps=None, max_seconds=4, patience=10_000))
    run = book.manifest["run"]
    assert run["steps"] > 20
    assert run["steps"] <= run["steps_planned"]


@pytest.mark.parametrize(("changes", "steps"), [({"epochs": 3}, 15), ({"epochs": 3, "steps": 7}, 7), ({"steps": 0}, 0)])
def test_a_wall_budget_leaves_the_planned_steps_as_they_are(changes: dict, steps: int) -> None:
    from sid_pipeline.rqvae.trainer import _Run

    x, paths = catalogue()
    run = _Run(x, paths, quick(**{"steps": None, "max_seconds": 600, **changes}), None, None)
    run.start()
    run.loop()
    assert (run.state.step, run.state.stopped) == (steps, "")


def test_a_refit_that_is_worse_leaves_the_last_state_as_it_was_validated() -> None:
    from sid_pipeline.rqvae.trainer import _Run

    x, paths = catalogue()
    run = _Run(x, paths, quick(steps=20), None, None)
    run.start()
    run.loop()
    state = run.state
    run.best = {k: v.clone() for k, v in run.model.state_dict().items()}
    state.best_step, state.best_score, ridge = state.step, 0.05, run.ridge

    def worse(model: torch.nn.Module) -> float:
        model.means += 1
        run.ridge = -1.0
        return 0.06

    run._fit = worse  # type: ignore[method-assign]
    book = run.finish({})
    assert all(torch.equal(run.best[k], v) for k, v in run.model.state_dict().items())
    told = book.manifest["run"]
    assert (told["chosen_step"], told["readout_ridge"]) == (20, ridge)
    assert book.manifest["metrics"]["relative_error"] == 0.05


def leaves(n: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """n products in `number` compact leaves of one size."""
    rng = np.random.default_rng(0)
    leaf = np.arange(n) % number
    x = rng.standard_normal((number, 16))[leaf] + 0.01 * rng.standard_normal((n, 16))
    return x.astype(np.float32), leaf[:, None]


@pytest.mark.parametrize(("size", "number"), [(8, 100), (4, 10)])
def test_more_leaves_than_code_paths_are_joined(size: int, number: int) -> None:
    from sid_pipeline.rqvae.trainer import _Run

    x, paths = leaves(10_000 if size == 8 else 600, number)
    run = _Run(x, paths, quick(codebook_size=size, snapped_levels=3), None, None)
    run.start()
    model = run.model
    assert model.prototypes <= size * size and model.most_cells <= size
    assert len(torch.unique(model.paths, dim=0)) == model.prototypes


def test_the_smallest_groups_go_to_the_nearest() -> None:
    z = torch.tensor([[0.0], [0.1], [5.0], [5.2], [5.4], [4.0], [9.0], [9.1]])
    groups = [torch.tensor(rows) for rows in ([0, 1], [2, 3, 4], [5], [6, 7])]
    assert [rows.tolist() for rows in init._joined(z, groups, 3)] == [[0, 1], [2, 3, 4, 5], [6, 7]]
    assert init._joined(z, groups, 4) == groups


def test_a_category_of_empty_prototypes_alone_seeds_nothing() -> None:
    means, weight = torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([2.0, 1.0, 0.0])
    found = init._category_means(means, weight, np.array([[0], [0], [1]]), 16)
    assert found is not None and found.tolist() == [[pytest.approx(5 / 3)]]


def test_a_readout_that_no_memory_holds_is_refused_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    from sid_pipeline.rqvae import trainer

    assert init.readout_bytes(4096, 512, 2) < 2**27 < 2**30 < init.readout_bytes(4096, 4096, 2)
    monkeypatch.setattr(trainer, "_memory", lambda device: 64 * 10**9)
    with pytest.raises(TrainingError, match=r"codebook_size 32768 with 4 levels .* 825 GB .* has 64 GB; lower"):
        train(*catalogue(), quick(codebook_size=32_768))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_row_is_named(bad: float) -> None:
    x, paths = catalogue()
    x[321, 5] = bad
    with pytest.raises(ValueError, match="embeddings row 321 holds NaN or Inf"):
        train(x, paths, quick())


def test_a_loss_that_is_not_finite_is_named_by_step() -> None:
    from sid_pipeline.rqvae.trainer import _Run

    x, paths = catalogue()
    run = _Run(x, paths, quick(), None, None)
    run.start()
    inner = run.data.take
    run.data.take = lambda rows: inner(rows) * (float("inf") if run.state.step == 26 else 1)  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="not finite at step 27"):
        run.loop()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.ones((100, 8), np.float32), "All embeddings are the same vector"),
        (np.ones((3, 8), np.float32), "at least 16 products"),
        (np.ones(100, np.float32), "float array of shape"),
        (np.ones((100, 8), np.int64), "float array of shape"),
    ],
)
def test_unusable_embeddings_are_refused(x: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        train(x, None, quick())


def test_fewer_products_than_codewords_need() -> None:
    x, paths = catalogue(600)
    book = train(x, paths, quick(codebook_size=512, steps=10))
    assert book.encode(x).max() < 512
    assert book.manifest["metrics"]["collisions"] < 0.05


def test_duplicates() -> None:
    x, paths = catalogue(600)
    x[:180], paths[:180] = x[0], paths[0]
    book = train(x, paths, quick())
    assert len(np.unique(book.encode(x[:180]), axis=0)) == 1
    assert book.manifest["metrics"]["distinct_rows"] < 425


def test_one_dimension_and_no_taxonomy() -> None:
    x = np.linspace(-1, 1, 300, dtype=np.float32)[:, None]
    book = train(x, None, quick())
    assert book.manifest["run"]["lambda_contrastive"] == 0
    assert any("No product has a category" in note for note in book.manifest["run"]["notes"])
    error = ((x - book.decode(book.encode(x))) ** 2).sum() / ((x - x.mean()) ** 2).sum()
    assert error < 1 / 16**2  # what the 16 codewords of one level alone would leave


@pytest.mark.parametrize(
    "paths", [np.zeros((500, 2), int), np.arange(500)[:, None], np.where(np.arange(500)[:, None] < 2, 0, -1)]
)
def test_odd_taxonomies(paths: np.ndarray) -> None:
    x, _ = catalogue()
    assert min(train(x, paths, quick(steps=5)).manifest["metrics"]["usage"]) > 0.5


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": ()},
        {"snapped_levels": 0},
        {"snapped_levels": 2},
        {"taxonomy_init": False},
        {"levels": 2, "level_weights": (1, 0)},
        {"hierarchical_fraction": 0.0},
        {"steps": 0},
        {"lambda_contrastive": 0},
    ],
)
def test_every_part_can_be_left_out(changes: dict) -> None:
    x, paths = catalogue()
    config = quick(**{"steps": 5, **changes})
    book = train(x, paths, config)
    assert book.encode(x).shape == (500, config.levels)


def test_a_memory_map_is_read_in_place(tmp_path: Path, trained: Codebook) -> None:
    x, paths = catalogue()
    np.save(tmp_path / "x.npy", x)
    assert train(np.load(tmp_path / "x.npy", mmap_mode="r"), paths, quick()).id == trained.id


def test_collapse_to_the_mean_is_refused_with_its_diagnosis() -> None:
    noise = np.random.default_rng(0).standard_normal((300, 256)).astype(np.float32)
    with pytest.raises(CollapsedCodebookError, match="as if every product were the mean"):
        train(noise, None, quick(max_relative_error=0.5))


def test_a_collapsed_level_is_refused_with_its_diagnosis() -> None:
    """One far outlier owns all the variance: the rest is one point to float32."""
    x, paths = catalogue()
    x = 1 + 1e-5 * x
    x[7] = 1e4
    with pytest.raises(CollapsedCodebookError, match=r"level 1 uses \d+ of 16 usable codewords"):
        train(x.astype(np.float32), paths, quick())


def health_of(codes: np.ndarray, distinct_rows: int = 100, **changes: Any) -> gate.Health:
    """Figures of codes (N, levels) that pass every gate that does not look at the codes."""
    measured = gate.measure(codes, 16, distinct_rows, 0.3, 0.3, (1000, [1.0, 1.0]))
    return dataclasses.replace(measured, **changes)


def test_gate_names_level_and_cure() -> None:
    codes = np.zeros((100, 2), np.int32)
    codes[:, 1] = np.arange(100) % 3
    health = health_of(codes)
    assert health.usage == [1 / 16, 3 / 16]
    assert health.perplexity == pytest.approx([1.0, 3.0], rel=1e-3)
    assert (health.distinct, health.collisions) == (3, 0.97)
    with pytest.raises(CollapsedCodebookError, match=r"level 1 uses 1 of 16 .*lower it towards 0.01.*level 2 uses 3"):
        gate.refuse_collapse(health, quick(max_collisions=1.0), 1.0)
    gate.refuse_collapse(health, quick(min_usage=0.0, max_collisions=1.0), 1.0)


def test_gate_of_collisions_names_the_level_that_tells_least_apart() -> None:
    codes = np.stack([np.arange(100) % 5, np.arange(100) % 2], 1).astype(np.int32)  # 10 code pairs for 100 products
    config = quick(min_usage=0.0, max_collisions=0.85)
    with pytest.raises(CollapsedCodebookError, match=r"90% of 100 different products collide .*apart is 2, perpl"):
        gate.refuse_collapse(health_of(codes), config, 0.01)
    # Repeated products share their codes by right.
    gate.refuse_collapse(health_of(codes, distinct_rows=10), config, 0.01)


def test_gate_of_error_compares_with_residual_kmeans() -> None:
    codes = np.arange(100, dtype=np.int32)[:, None] % 16 * np.ones(2, np.int32)
    config = quick(max_collisions=1.0)
    gate.refuse_collapse(health_of(codes, relative_error=0.59), config, 0.01)
    with pytest.raises(CollapsedCodebookError, match=r"error is 0.610 .*residual k-means of the same size makes 0.300"):
        gate.refuse_collapse(health_of(codes, relative_error=0.61), config, 0.01)
    gate.refuse_collapse(health_of(codes, relative_error=0.61), quick(max_error_against_kmeans=2.5), 0.01)
    gate.refuse_collapse(health_of(codes, relative_error=0.009, kmeans_error=0.0), config, 0.01)
    off = quick(max_collisions=1.0, max_error_against_kmeans=float("inf"))
    gate.refuse_collapse(health_of(codes, relative_error=0.8, kmeans_error=0.0), off, 0.01)


def test_gate_of_near_duplicates_needs_pairs_enough() -> None:
    codes = np.arange(100, dtype=np.int32)[:, None] % 16 * np.ones(2, np.int32)
    config = quick(max_collisions=1.0)
    with pytest.raises(CollapsedCodebookError, match="only 40% of 100 pairs of near-duplicates share their first"):
        gate.refuse_collapse(health_of(codes, near_pairs=100, near_share=[0.4, 0.1]), config, 0.01)
    gate.refuse_collapse(health_of(codes, near_pairs=99, near_share=[0.4, 0.1]), config, 0.01)


def test_near_duplicates_by_hand() -> None:
    far = torch.eye(400, 402)[:, [-2, -1, *range(400)]]
    near = torch.zeros(4, 402)
    near[:, :2] = torch.tensor([[1.0, 0.0], [0.95, 0.1], [0.0, 1.0], [0.1, 3.0]])
    x, codes = torch.cat([near, far]), torch.tensor([[1, 2], [1, 3], [4, 5], [4, 5], *[[4, 5]] * 400])
    # Pairs seen from the first three rows: 0-1, 1-0 and 2-3, which is few among 3 x 404.
    assert near_duplicates(x, codes, queries=3) == (3, [1.0, pytest.approx(1 / 3)])
    assert near_duplicates(x[[0, 2]], codes[[0, 2]]) == (0, [0.0, 0.0])
    assert near_duplicates(1 + x, codes)[0] == 0  # all in one cone


def test_residual_kmeans_error_on_points_that_are_centroids() -> None:
    """Four points and two levels of two codewords: nothing is left over. One level leaves the spread of each pair."""
    points = torch.tensor([[10.0, 1.0], [10.0, -1.0], [-10.0, 1.0], [-10.0, -1.0]]).repeat(8, 1)
    assert residual_kmeans_error(points, points, 2, 2, 0) == pytest.approx(0.0, abs=1e-6)
    assert residual_kmeans_error(points, points, 1, 2, 0) == pytest.approx(1 / 101, rel=1e-4)


def test_defaults_scale_with_the_catalogue() -> None:
    from sid_pipeline.rqvae.trainer import _Run

    steps = []
    for n in (500, 5000):
        x, paths = catalogue(n)
        steps.append(_Run(x, paths, TrainConfig(), None, None).state.steps)
    assert 0 < steps[0] <= steps[1] <= 1200


def test_the_taxonomy_term_counts_for_the_steps_without_it() -> None:
    from sid_pipeline.rqvae.trainer import _Run

    def terms(every: int) -> tuple[np.ndarray, dict[str, float]]:
        """Loss, reconstruction, quantisation and taxonomy term of each step, and what is reported of all."""
        x, paths = catalogue()
        run = _Run(x, paths, quick(steps=5, contrastive_every=every), None, None)
        run.start()
        for _ in range(5):
            run._set_rate()
            run._step()
            run.state.step += 1
        return torch.stack(run.pending).numpy(), run._terms()

    each, _ = terms(1)
    third, told = terms(3)
    assert (each[:, 3] > 0).all() and (third[:, 3] > 0).tolist() == [True, False, False, True, False]
    # The first step is of the same batch, from the same start.
    assert third[0, 3] == pytest.approx(3 * each[0, 3], rel=1e-4)
    assert third[0, 1] == pytest.approx(each[0, 1], rel=1e-4)
    assert third[1, 0] == pytest.approx(third[1, 1] + third[1, 2], rel=1e-4)
    # What is told does not depend on where the rounds of three begin and end.
    assert told["contrastive"] == pytest.approx((third[0, 3] + third[3, 3]) / 6, rel=1e-4)
    parts = told["reconstruction"] + told["quantisation"] + 0.01 * told["contrastive"]
    assert told["loss"] == pytest.approx(parts, rel=1e-4)


def test_when_the_gpu_runs_out_of_memory_the_batch_goes_in_halves() -> None:
    """The GPU's error is raised here by hand: no GPU runs this test."""
    from sid_pipeline.rqvae.trainer import _Run

    x, paths = catalogue()
    run = _Run(x, paths, quick(steps=6), None, None)
    run.start()
    inner = run.data.take

    def take(rows: np.ndarray) -> torch.Tensor:
        if run.state.step == 2 and len(rows) > 70:
            raise torch.cuda.OutOfMemoryError("no room")
        return inner(rows)

    run.data.take = take  # type: ignore[method-assign]
    run.loop()
    assert run.state.micro == 64
    assert any("ran out of memory at step 3: batches go in parts of 64 rows" in note for note in run.notes)
    run.data.take = inner  # type: ignore[method-assign]
    assert run.finish({}).manifest["run"]["steps"] == 6


def test_the_distance_of_a_strange_vector_is_beyond_the_trained_ones(trained: Codebook) -> None:
    x, _ = catalogue()
    quantiles = trained.config["distance_quantiles"]
    assert list(quantiles) == ["0.5", "0.9", "0.99", "0.999"]
    assert quantiles["0.5"] < quantiles["0.999"] < trained.config["ood_distance"]
    strange = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    strange *= 3
    assert (trained.quantise(strange).distance > trained.config["ood_distance"]).mean() > 0.9
    assert (trained.quantise(x).distance > trained.config["ood_distance"]).mean() < 0.01
