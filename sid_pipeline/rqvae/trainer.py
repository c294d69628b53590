"""The training loop: from vectors and category paths to a `Codebook`.

Read `train` top to bottom. Belongs here: the order of things, budgets, logging, checkpoints, model choice.
The parts (losses, samplers, closed-form fits, gates) have modules of their own.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sid_pipeline.rqvae import checkpoint, gate, losses, yardsticks
from sid_pipeline.rqvae import initialise as init
from sid_pipeline.rqvae.codebook import Codebook
from sid_pipeline.rqvae.config import TrainConfig
from sid_pipeline.rqvae.errors import TrainingError
from sid_pipeline.rqvae.model import RQVAE, Quantisation, export, fits, restore
from sid_pipeline.rqvae.sampler import HierarchicalSampler, UniformSampler
from sid_pipeline.rqvae.tree import GRADES, build_tree, grade_pairs

log = logging.getLogger(__name__)

Progress = Callable[[Mapping[str, float]], None]

_LOG_EVERY = 20
_WARM_STEPS = 20
# Rates of a codebook that is trained on, against those of one that starts: its products are to keep their codes.
_TRAIN_ON_RATE = 0.2
_CONTRAST_ROWS = 256
_LATENT_DIM = 96
_LEAST_MICRO = 32
_FIT_ROWS = 262_144
_FIT_PASSES = 2
_YARDSTICK_ROWS, _NEAR_ROWS = 16_384, 32_768
# What follows the last refit: yardsticks, metrics, margins, distances, writing.
_FINISH_SECONDS = 2.0
_DISTANCE_QUANTILES = (0.5, 0.9, 0.99, 0.999)
_OOD_FACTOR = 1.5
_TERMS = ("loss", "reconstruction", "quantisation", "contrastive")


def train(
    embeddings: ArrayLike,
    taxonomy_paths: ArrayLike | None,
    config: TrainConfig | None = None,
    *,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    provenance: Mapping[str, Any] | None = None,
    start_from: Codebook | None = None,
) -> Codebook:
    """Train a codebook.

    embeddings: (N, d) float32, an array or a memory map (it is read in place, never copied whole).
    taxonomy_paths: (N, depth) integers, coarse to fine, -1 or None where there is no (further) category; None for
        no taxonomy at all. A level's integers need only be unique under their parent.
    checkpoint_dir: folder for crash-safe checkpoints; a run found there is resumed and ends in the same
    codebook.
    progress: called every few steps with step, steps, loss terms, items_per_second, seconds_left.
    provenance: JSON-ready facts for the manifest (embedder id, taxonomy release, ...).
    start_from: train on from this codebook instead of from a closed-form start, at a lower rate, so that products keep
        their codes: encoder, prototypes, their paths and cells, and tables are taken over, then fitted to the
        embeddings. One of other shapes than the config asks for is passed over, with a note in the manifest.

    Raises `ValueError` for unusable input (naming the row), `TrainingError` for a loss that is not finite
    (naming the step) and for too little memory, `CollapsedCodebookError` if the result fails the quality gates,
    `CheckpointError` for a checkpoint of another run.
    """
    config = config or TrainConfig()
    with _threads(config.threads):
        run = _Run(embeddings, taxonomy_paths, config, checkpoint_dir, progress, start_from)
        run.start()
        run.loop()
        return run.finish(provenance or {})


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Catalogue:
    """Row access to the vectors, centred and scaled, on the device where training runs."""

    def __init__(self, embeddings: ArrayLike, device: torch.device) -> None:
        x = np.asarray(embeddings) if not isinstance(embeddings, np.memmap) else embeddings
        if x.ndim != 2 or not np.issubdtype(x.dtype, np.floating):
            raise ValueError(f"embeddings must be a float array of shape (N, d); got {x.dtype} {x.shape}.")
        if len(x) < 16:
            raise ValueError(f"embeddings has {len(x)} rows; at least 16 products are needed to train a codebook.")
        self.raw, self.device = x, device
        self.n, self.dim = x.shape
        self.hash, self.mean, self.scale, self.fingerprint = self._scan()
        self.resident: Tensor | None = None
        if device.type == "cuda" and 4 * self.n * self.dim < 0.5 * torch.cuda.mem_get_info(device)[0]:
            self.resident = self._moved(np.arange(self.n))

    def centre_on(self, mean: NDArray[Any]) -> None:
        """Centre the vectors on another point than their mean."""
        self.mean = torch.from_numpy(np.array(mean, np.float32)).to(self.device)
        if self.resident is not None:
            self.resident = self._moved(np.arange(self.n))

    def _scan(self) -> tuple[str, Tensor, float, NDArray[np.float64]]:
        """One pass: hash, check for NaN and Inf, mean (d,), root of the total variance, and one number per row (N,) by
        which equal rows are told from different ones."""
        ray = np.random.default_rng(0).standard_normal(self.dim)
        fingerprint = np.empty(self.n)
        digest = hashlib.sha256(f"{self.raw.dtype}{self.raw.shape}".encode())
        total = np.zeros(self.dim)
        square = 0.0
        for start in range(0, self.n, 16_384):
            part = np.ascontiguousarray(self.raw[start : start + 16_384])
            digest.update(part.tobytes())
            finite = np.isfinite(part).all(axis=1)
            if not finite.all():
                raise ValueError(
                    f"embeddings row {start + int(np.argmin(finite))} holds NaN or Inf; embed that product again, "
                    "or leave it out of the training set."
                )
            total += part.sum(axis=0, dtype=np.float64)
            square += float(np.einsum("nd,nd->", part, part, dtype=np.float64))
            np.matmul(part, ray, out=fingerprint[start : start + len(part)])
        mean = total / self.n
        variance = square / self.n - float(mean @ mean)
        if variance <= 1e-10 * max(square / self.n, 1e-30):
            raise ValueError("All embeddings are the same vector; a codebook needs products that differ.")
        return (
            digest.hexdigest(),
            torch.from_numpy(mean.astype(np.float32)).to(self.device),
            math.sqrt(variance),
            np.round(fingerprint / math.sqrt(variance), 9),
        )

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Centred, scaled vectors (len(rows), d)."""
        if self.resident is not None:
            return self.resident[torch.from_numpy(rows).to(self.device)]
        return self._moved(rows)

    def _moved(self, rows: NDArray[np.int64]) -> Tensor:
        part = np.asarray(self.raw[rows], dtype=np.float32)
        return (torch.from_numpy(part).to(self.device) - self.mean) / self.scale


@dataclass
class _State:
    """What a checkpoint holds besides tensors."""

    step: int = 0
    took_over: bool = False
    steps: int = 0
    micro: int = 0
    elapsed: float = 0.0
    fit_seconds: float = 0.0
    best_score: float = math.inf
    best_step: int = -1
    stale: int = 0
    stopped: str = ""
    history: list[dict[str, float]] = field(default_factory=list)


class _Run:
    def __init__(
        self,
        embeddings: ArrayLike,
        taxonomy_paths: ArrayLike | None,
        config: TrainConfig,
        checkpoint_dir: str | os.PathLike[str] | None,
        progress: Progress | None,
        start_from: Codebook | None = None,
    ) -> None:
        self.began = time.monotonic()
        self.config, self.progress, self.before = config, progress, start_from
        self.folder = Path(checkpoint_dir) if checkpoint_dir is not None else None
        self.device = _device(config.device)
        self.data = _Catalogue(embeddings, self.device)
        self.tree = build_tree(taxonomy_paths, self.data.n)
        self.notes: list[str] = []
        self.train_rows, self.held_rows = self._split()
        self.lam = self._lambda()
        self.uniform, self.related = self._samplers()
        self.latent = min(config.latent_dim or _LATENT_DIM, self.data.dim)
        self.state = _State(steps=self._planned_steps(), micro=config.batch_size)
        self.best: dict[str, Tensor] = {}
        self.pending: list[Tensor] = []

    # -------------------------------------------------------------------- set-up
    def _split(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        n = self.data.n
        held = min(max(round(n * self.config.validation_fraction), 4), 5000)
        order = np.random.default_rng([self.config.seed, 0]).permutation(n)
        return np.sort(order[held:]), np.sort(order[:held])

    def _lambda(self) -> float:
        if self.config.lambda_contrastive > 0 and (self.tree.leaf[self.train_rows] >= 0).sum() < 2:
            self._note("No product has a category: lambda_contrastive is 0 in this run.")
            return 0.0
        return self.config.lambda_contrastive

    def _note(self, text: str) -> None:
        log.warning(text)
        self.notes.append(text)

    def _samplers(self) -> tuple[UniformSampler, HierarchicalSampler | None]:
        c = self.config
        related = None
        if c.hierarchical_fraction > 0 and (self.tree.leaf[self.train_rows] >= 0).sum() >= 2:
            size = round(c.batch_size * c.hierarchical_fraction)
            related = HierarchicalSampler(self.tree, self.train_rows, size, c.products_per_slot, c.seed)
            if related.size == 0:
                related = None
        taken = related.size if related else 0
        return UniformSampler(self.train_rows, c.batch_size - taken, c.seed), related

    def _planned_steps(self) -> int:
        c = self.config
        per_epoch = max(len(self.train_rows) / self.uniform.size, 1e-9)
        if c.steps is not None:
            return c.steps
        if c.epochs is not None:
            return max(1, round(c.epochs * per_epoch))
        if c.max_seconds is not None:
            return 10**9
        return max(1, round(min(max(1200 / per_epoch, 6), 60) * per_epoch))

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be resumed."""
        values = {f"TrainConfig.{k}": v for k, v in self.config.to_dict().items() if k not in ("threads", "device")}
        taxonomy = hashlib.sha256(np.ascontiguousarray(self.tree.node).tobytes()).hexdigest()
        return {
            **values,
            "embeddings": self.data.hash,
            "taxonomy_paths": taxonomy,
            "start_from": self.before.id if self.before else None,
            "torch": str(torch.__version__),
        }

    def start(self) -> None:
        """Initialise in closed form, or resume from the checkpoint."""
        found = checkpoint.read(self.folder, self._identity()) if self.folder else None
        if found:
            tensors, state = found
            if self.before is not None and state["took_over"]:
                self.data.centre_on(self.before.arrays["mean"])
            self._build(state["snapped"], tensors["model.start"].diff().tolist())
            self._restore(tensors, state)
            return
        if self.before is not None and self._take_over(self.before):
            self._finish_start()
            return
        c = self.config
        generator = torch.Generator().manual_seed(c.seed)
        sample = self._sample(c.init_rows, 3)
        x = self.data.take(sample)
        axes = init.principal_axes(x, self.latent)
        z = x @ axes
        leaf = self.tree.leaf[sample] if c.taxonomy_init else np.full(len(z), -1)
        plan = init.make_plan(c, z, leaf, len(self.train_rows))
        prototypes = init.cluster(z, leaf, plan, generator) if plan.snapped else None
        self._build(plan.snapped, prototypes.cells if prototypes else [])
        with torch.no_grad():
            self.model.encoder_linear.copy_(axes)
            self.model.decoder_linear.copy_(axes.T)
            if prototypes:
                node = self.tree.node[sample] if c.taxonomy_init else self.tree.node[sample, :0]
                init.set_keys(self.model, z, prototypes.member)
                init.set_means(self.model, z, prototypes.cell)
                init.lay_paths(self.model, z, node, c.kmeans_iterations, generator)
            init.fit_tables(self.model, z, c.kmeans_iterations, generator, warm=False)
        del x, z
        self._finish_start()

    def _finish_start(self) -> None:
        began = time.monotonic()
        self._fit(self.model)
        self.state.fit_seconds = time.monotonic() - began
        self._save()

    def _take_over(self, book: Codebook) -> bool:
        """Start from a codebook; False, and nothing done, where its shapes are not those of the config."""
        arrays, wanted = book.arrays, self.config.snapped_levels
        if book.dim == self.data.dim and wanted in (None, book.snapped_levels):
            self._build(book.snapped_levels, np.diff(arrays.get("cell.start", np.zeros(1, int))).tolist())
            if fits(self.model, arrays):
                # The old encoder reads vectors around the old mean.
                self.data.centre_on(arrays["mean"])
                restore(self.model, arrays, self.data.scale)
                self.state.took_over = True
                return True
        self._note(f"Codebook {book.id} has other shapes than this training: it starts cold.")
        return False

    def _sample(self, most: int, stream: int) -> NDArray[np.int64]:
        """At most `most` training rows, sorted; the same in every call."""
        if len(self.train_rows) <= most:
            return self.train_rows
        rng = np.random.default_rng([self.config.seed, stream])
        return np.sort(rng.choice(self.train_rows, most, replace=False))

    @torch.no_grad()
    def _fit(self, model: RQVAE) -> float:
        """Tables and readouts in closed form, on all training rows or a large sample; returns the held-out relative
        error."""
        rows = self._sample(_FIT_ROWS, 5)
        generator = torch.Generator().manual_seed(self.config.seed + 1)
        z = torch.cat([model.encode(self.data.take(part)) for part, _ in _chunks(rows)])
        found = init.fit_tables(model, z, _FIT_PASSES, generator, warm=True)
        held = self.data.take(self.held_rows)
        parts = ((self.data.take(part), at) for part, at in _chunks(rows))
        self.ridge, error = init.fit_readout(model, found, parts, held)
        return error / float(held.square().sum(1).mean())

    def _build(self, snapped: int, cells: list[int]) -> None:
        c = self.config
        needed, there = init.readout_bytes(len(cells), c.codebook_size, c.levels - snapped), _memory(self.device)
        if needed > there:
            raise TrainingError(
                f"codebook_size {c.codebook_size} with {c.levels - snapped} levels below the prototypes needs "
                f"{needed / 1e9:,.0f} GB to fit the readouts, and the {self.device.type} has {there / 1e9:,.0f} GB; "
                "lower codebook_size or levels."
            )
        self.model = RQVAE(c, self.data.dim, self.latent, snapped, cells).to(self.device)
        halves = [m for m in (self.model.encoder, self.model.decoder) if m]
        groups = [
            {
                "params": [self.model.encoder_linear, self.model.decoder_linear],
                "weight_decay": 0.0,
                "peak": c.linear_learning_rate,
            },
            {"params": [p for m in halves for p in m.weight], "weight_decay": c.weight_decay, "peak": c.learning_rate},
            {
                "params": [self.model.keys, self.model.offset, *(p for m in halves for p in m.bias)],
                "weight_decay": 0.0,
                "peak": c.learning_rate,
            },
        ]
        self.optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, fused=True)
        self.used = torch.zeros(c.levels - snapped, c.codebook_size, device=self.device)
        self.spare: list[Tensor] = []

    # ---------------------------------------------------------------------- loop
    def loop(self) -> None:
        """Gradient steps until the budget ends or validation stops improving."""
        s, c = self.state, self.config
        self.looped, self.looped_step = self.ticked, self.ticked_step = time.monotonic(), s.step
        if s.step == 0 and not s.history:
            self._validate()
        self._plan()
        while s.step < s.steps and not s.stopped:
            self._set_rate()
            self._step()
            s.step += 1
            if c.reset_every and s.step % c.reset_every == 0 and s.step < 0.8 * s.steps:
                self._reset_unused()
            self._plan()
            if s.step % _LOG_EVERY == 0 or s.step == s.steps:
                self._report()
            if s.step % c.validate_every == 0 or s.step == s.steps:
                self._validate()
            if self.folder and s.step % c.checkpoint_every == 0:
                self._save()
        self._save()

    def _set_rate(self) -> None:
        s = self.state
        warm = min((s.step + 1) / _WARM_STEPS, 1.0)
        cosine = 0.5 * (1 + math.cos(math.pi * min(s.step / max(s.steps, 1), 1.0)))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * (_TRAIN_ON_RATE if s.took_over else 1.0) * warm * (0.02 + 0.98 * cosine)

    def _step(self) -> None:
        """One batch, in parts of at most `micro` rows: the related rows come first."""
        step = self.state.step
        self.drawn = self.related.batch(step) if self.related else np.empty(0, np.int64)
        self.rows = np.concatenate([self.drawn, self.uniform.batch(step)])
        with _bf16_on_cpu(self.device):
            while True:
                try:
                    parts, terms = self._gradients()
                    break
                except torch.cuda.OutOfMemoryError:
                    self._halve()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimiser.step()
        found, z, error = map(list, zip(*parts, strict=True))
        if len(parts) == 1:
            self._move_tables(found[0], z[0], error[0])
        else:
            self._move_tables(Quantisation.cat(found), torch.cat(z), torch.cat(error))
        self.pending.append(terms)

    def _gradients(self) -> tuple[list[tuple[Quantisation, Tensor, Tensor]], Tensor]:
        """Gradients of the batch; per part its quantisation, latents and reconstruction errors; the loss terms (4,)."""
        c, related = self.config, len(self.drawn)
        weight = torch.ones(len(self.rows), device=self.device)
        weight[:related] = c.hierarchical_weight
        whole = weight.sum()
        self.optimiser.zero_grad(set_to_none=True)
        parts, terms = [], torch.zeros(len(_TERMS), device=self.device)
        for start in range(0, len(self.rows), self.state.micro):
            rows = self.rows[start : start + self.state.micro]
            own = weight[start : start + len(rows)]
            x = self.data.take(rows)
            with self._autocast():
                z = self.model.encode(x)
            z = z.float()
            found = self.model.quantise(z.detach())
            # Straight through the quantiser (van den Oord et al. 2017).
            through = z + (found.q - z).detach()
            with self._autocast():
                out = self.model.decode(through, found.prototype, found.codes)
            out = out.float()
            share = own.sum() / whole
            recon = share * losses.reconstruction(x, out, own)
            rq = share * losses.quantisation(z, found.q, c.commitment, own)
            contrast = torch.zeros((), device=self.device)
            if self.lam > 0 and start == 0 and self.state.step % c.contrastive_every == 0:
                contrast = c.contrastive_every * self._contrast(z, found, rows)
            total = recon + rq + self.lam * contrast
            total.backward()
            terms += torch.stack([total, recon, rq, contrast]).detach()
            parts.append((found, z.detach(), (x - out).detach()))
        return parts, terms

    def _autocast(self) -> torch.autocast:
        """bfloat16 on a GPU, for encoder and decoder only: distances and probabilities near 1 need float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def _halve(self) -> None:
        """Go on with parts of half the rows after the GPU ran out of memory."""
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.state.micro <= _LEAST_MICRO:
            raise TrainingError(
                f"The GPU has no memory for {self.state.micro} rows at step {self.state.step + 1}; "
                "lower hidden, latent_dim or prototypes, or set device to 'cpu'."
            )
        self.state.micro = -(-self.state.micro // 2)
        self._note(
            f"The GPU ran out of memory at step {self.state.step + 1}: batches go in parts of {self.state.micro} rows."
        )

    def _contrast(self, z: Tensor, found: Quantisation, rows: NDArray[np.int64]) -> Tensor:
        """The taxonomy term, on the related part of the batch or, without one, on its categorised rows."""
        at = np.arange(min(len(self.drawn), len(rows)) or len(rows))
        at = at[self.tree.leaf[rows[at]] >= 0][:_CONTRAST_ROWS]
        picked = rows[at]
        node = torch.from_numpy(self.tree.node[picked]).to(self.device)
        where = torch.from_numpy(at).to(self.device)
        memberships, whole = losses.memberships(self.model, z[where], found.at(where))
        return losses.contrastive(
            memberships,
            whole,
            grade_pairs(node[:, None], node[None]),
            torch.from_numpy(picked).to(self.device),
            self.config.level_weights,
            self.config.negative_weight,
        )

    @torch.no_grad()
    def _move_tables(self, found: Quantisation, z: Tensor, error: Tensor) -> None:
        """Moving averages: of what chose each cell, codeword and readout entry among the evenly drawn rows."""
        m, decay = self.model, self.config.table_decay
        even = slice(len(self.drawn), None)
        z, error, prototype, cell = z[even], error[even], found.prototype[even], found.cell[even]
        if m.snapped:
            _follow(m.means, cell, z - m.means[cell], decay)
            _follow(m.prototype_readout, prototype, error, decay)
        self.spare = [rest[even] for rest in found.rests]
        for i, rest in enumerate(self.spare):
            code = found.codes[even, m.snapped + i]
            _follow(m.codewords[m.snapped + i], code, rest - m.codewords[m.snapped + i][code], decay)
            _follow(m.readout[i], code, error, decay)
            self.used[i] += torch.bincount(code, minlength=m.size)

    @torch.no_grad()
    def _reset_unused(self) -> None:
        """Move deep codewords that no row chose since the last reset onto random rests of this batch."""
        rng = np.random.default_rng([self.config.seed, 4, self.state.step])
        for i, spare in enumerate(self.spare):
            dead = torch.nonzero(self.used[i] == 0)[:, 0]
            pick = torch.from_numpy(rng.integers(len(spare), size=len(dead))).to(self.device)
            self.model.codewords[self.model.snapped + i, dead] = spare[pick]
            self.model.readout[i, dead] = 0
        self.used.zero_()

    # ------------------------------------------------------------------- clock
    def _elapsed(self) -> float:
        return self.state.elapsed + time.monotonic() - self.began

    def _plan(self) -> None:
        """Turn what is left of the wall budget into a step budget, from the speed so far; stop where none is left.

        The refit at the end is the work that `start` did and timed.
        """
        s, c = self.state, self.config
        if c.max_seconds is None:
            return
        now = time.monotonic()
        per_step = (now - self.looped) / max(s.step - self.looped_step, 1)
        left = c.max_seconds - self._elapsed() - s.fit_seconds - _FINISH_SECONDS
        planned = self._planned_steps()
        s.steps = max(min(s.step + int(left / max(per_step, 1e-9)), planned), s.step)
        if s.steps == s.step < planned:
            s.stopped = "wall budget"

    # ----------------------------------------------------------------- reporting
    def _terms(self) -> dict[str, float]:
        """Mean loss terms since the last report; raises if one was not finite, naming the step."""
        if not self.pending:
            return {}
        values = torch.stack(self.pending).cpu()
        bad = ~torch.isfinite(values).all(dim=1)
        first = self.state.step - len(self.pending) + 1
        if bad.any():
            at = int(bad.int().argmax())
            named = ", ".join(f"{t} {v:g}" for t, v in zip(_TERMS, values[at].tolist(), strict=True))
            raise TrainingError(
                f"The loss is not finite at step {first + at} ({named}); lower learning_rate or lambda_contrastive."
            )
        mean = dict(zip(_TERMS, values.mean(0).tolist(), strict=True))
        # The taxonomy term counts for every step of a round; a window need not hold whole rounds.
        every, last = self.config.contrastive_every, self.state.step
        used = sum(step % every == 0 for step in range(last - len(values), last))
        if used:
            term = float(values[:, -1].sum()) / (used * every)
            mean["loss"] += self.lam * (term - mean["contrastive"])
            mean["contrastive"] = term
        return mean

    def _report(self) -> None:
        s = self.state
        terms = self._terms()
        self.pending = []
        now = time.monotonic()
        speed = len(self.rows) * (s.step - self.ticked_step) / max(now - self.ticked, 1e-9)
        left = (s.steps - s.step) * (now - self.ticked) / max(s.step - self.ticked_step, 1)
        self.ticked, self.ticked_step = now, s.step
        row = {"step": s.step, "learning_rate": self.optimiser.param_groups[-1]["lr"], **terms}
        if self.related:
            mix = self.related.pair_mix(self.drawn[:256])
            row.update({f"pairs {name}": mix[name] for name in GRADES})
        s.history.append({**row, "items_per_second": round(speed, 1)})
        if self.progress:
            self.progress({**row, "steps": s.steps, "items_per_second": speed, "seconds_left": left})

    def _validate(self) -> None:
        """Held-out relative error; keeps the best state and counts towards early stop."""
        self._terms()
        s = self.state
        error, codes = self._held_out()
        used = [len(torch.unique(codes[:, level])) for level in range(self.config.levels)]
        row: dict[str, float] = {"step": s.step, "validated": s.step, "held_out_relative_error": error}
        row.update({f"held_out_codes_l{level + 1}": n for level, n in enumerate(used)})
        s.history.append(row)
        if error < s.best_score * (1 - 1e-3):
            s.best_score, s.best_step, s.stale = error, s.step, 0
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        else:
            s.stale += 1
            if s.stale >= self.config.patience:
                s.stopped = "no improvement"
        self.ticked, self.ticked_step = time.monotonic(), s.step

    @torch.no_grad()
    def _held_out(self) -> tuple[float, Tensor]:
        x = self.data.take(self.held_rows)
        error, codes = [], []
        for part in x.split(4096):
            found = self.model.quantise(self.model.encode(part))
            error.append((part - self.model.decode(found.q, found.prototype, found.codes)).square().sum(1))
            codes.append(found.codes)
        # Relative to predicting the catalogue's mean for the same rows.
        return float(torch.cat(error).mean() / x.square().sum(1).mean()), torch.cat(codes)

    # --------------------------------------------------------------- checkpoints
    def _save(self) -> None:
        if not self.folder:
            return
        self._terms()
        s = self.state
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors.update({f"best.{k}": v for k, v in self.best.items()})
        tensors.update(checkpoint.optimiser_tensors(self.optimiser))
        tensors["used"] = self.used
        if self.pending:
            tensors["pending"] = torch.stack(self.pending)
        state = {
            **s.__dict__,
            "snapped": self.model.snapped,
            "ridge": self.ridge,
            "elapsed": self._elapsed(),
            "run": self._identity(),
        }
        checkpoint.write(self.folder, tensors, state)

    def _restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v.to(self.device) for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(under("model."))
        self.best = under("best.")
        checkpoint.restore_optimiser(self.optimiser, tensors)
        self.used, self.ridge = tensors["used"].to(self.device), state["ridge"]
        self.pending = list(tensors["pending"].to(self.device)) if "pending" in tensors else []
        self.state = _State(**{k: v for k, v in state.items() if k not in ("run", "snapped", "ridge")})
        self.began = time.monotonic()
        log.info("resumed at step %d of %d", self.state.step, self.state.steps)

    # -------------------------------------------------------------------- finish
    @torch.no_grad()
    def finish(self, provenance: Mapping[str, Any]) -> Codebook:
        """The last state refitted in closed form, or the best one seen where that is better; gates; the frozen
        codebook."""
        c, s = self.config, self.state
        relative, chosen = s.best_score, s.best_step
        if s.step > 0:
            before = self.ridge
            refitted = self._fit(self.model)
            s.history.append({"step": s.step, "held_out_relative_error": refitted})
            if refitted < relative:
                relative, chosen = refitted, s.step
            else:
                self.model.load_state_dict(self.best)
                self.ridge = before
        rows = self._sample(_FIT_ROWS, 5)
        codes = torch.cat(
            [self.model.quantise(self.model.encode(self.data.take(part))).codes for part, _ in _chunks(rows)]
        )
        distinct = len(np.unique(self.data.fingerprint[rows]))
        fitted_on, held = self.data.take(self._sample(_YARDSTICK_ROWS, 6)), self.data.take(self.held_rows)
        baseline = yardsticks.residual_kmeans_error(fitted_on, held, c.levels, c.codebook_size, c.seed)
        drawn = np.random.default_rng([c.seed, 7]).permutation(len(rows))[:_NEAR_ROWS]
        vectors = torch.from_numpy(np.asarray(self.data.raw[rows[drawn]], np.float32)).to(self.device)
        near = yardsticks.near_duplicates(vectors, codes[torch.from_numpy(drawn).to(self.device)])
        health = gate.measure(codes.cpu().numpy(), c.codebook_size, distinct, relative, baseline, near)
        gate.refuse_collapse(health, c, self.lam)
        manifest = {
            "train_config": c.to_dict(),
            "inputs": {
                "products": self.data.n,
                "dim": self.data.dim,
                "embeddings_sha256": self.data.hash,
                "taxonomy_sha256": self._identity()["taxonomy_paths"],
                "leaves": self.tree.leaves,
                "uncategorised": int((self.tree.leaf < 0).sum()),
            },
            "run": {
                "steps": s.step,
                "steps_planned": s.steps,
                "chosen_step": chosen,
                "stopped": s.stopped or "step budget",
                "epochs": s.step * self.uniform.size / len(self.train_rows),
                "lambda_contrastive": self.lam,
                "snapped_levels": self.model.snapped,
                "prototypes": self.model.prototypes,
                "cells": len(self.model.means),
                "readout_ridge": self.ridge,
                "device": str(self.device),
                "notes": self.notes,
            },
            "metrics": health.to_dict(),
            "versions": {
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "numpy": np.__version__,
            },
            "provenance": dict(provenance),
        }
        arrays = export(self.model, self.data.mean, self.data.scale)
        book = Codebook(arrays, self._inference_config(arrays), manifest, s.history)
        book.manifest["run"]["seconds"] = round(self._elapsed(), 2)
        return book

    def _inference_config(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """What the codebook must know of itself, measured on held-out products."""
        snapped = {"snapped_levels": self.model.snapped}
        x = np.asarray(self.data.raw[self.held_rows], dtype=np.float32)
        single = Codebook(arrays, {**snapped, "margin_bound": -1.0})
        bound = _margin_bound(single, Codebook(arrays, {**snapped, "margin_bound": math.inf}), x[:2048])
        distance = single.quantise(x).distance.astype(np.float64)
        quantiles = {f"{q:g}": float(f"{np.quantile(distance, q):.6g}") for q in _DISTANCE_QUANTILES}
        return {
            **snapped,
            "margin_bound": bound,
            "distance_quantiles": quantiles,
            "ood_distance": float(f"{_OOD_FACTOR * quantiles['0.999']:.6g}"),
        }


@contextmanager
def _bf16_on_cpu(device: torch.device) -> Iterator[None]:
    """On a CPU with instructions for it, bfloat16 inside matrix products: operands and results stay float32."""
    if device.type != "cpu":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _margin_bound(single: Codebook, double: Codebook, x: NDArray[np.float32]) -> float:
    """Below which margin float32 cannot be trusted: 20 times the worst error seen on x."""
    a, b = single.quantise(x), double.quantise(x)
    same = (a.codes == b.codes).all(axis=1)
    worst = float(np.abs(a.margin[same] - b.margin[same]).max(initial=0.0))
    return float(f"{max(1e-6, 20 * worst):.3g}")


def _follow(table: Tensor, index: Tensor, gap: Tensor, decay: float) -> None:
    """Move entries of a table (M, D) by the mean gap (B, D) of the rows with that index (B,), less by few rows."""
    count = torch.bincount(index, minlength=len(table)).to(gap.dtype)
    rate = (1 - decay**count) / count.clamp_min(1)
    table.index_add_(0, index, gap * rate[index, None])


def _chunks(rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], slice]]:
    for start in range(0, len(rows), 8192):
        part = rows[start : start + 8192]
        yield part, slice(start, start + len(part))


def _memory(device: torch.device) -> int:
    """Bytes of memory that the device has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"TrainConfig.device is {name!r}, but torch sees no GPU here; use 'cpu' or 'auto'.")
    return torch.device(name)
