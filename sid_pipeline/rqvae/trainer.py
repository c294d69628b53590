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

from sid_pipeline.rqvae import checkpoint, gate, losses
from sid_pipeline.rqvae import initialise as init
from sid_pipeline.rqvae.codebook import Codebook
from sid_pipeline.rqvae.config import TrainConfig
from sid_pipeline.rqvae.model import RQVAE, Forward, export, inference_config
from sid_pipeline.rqvae.sampler import HierarchicalSampler, UniformSampler
from sid_pipeline.rqvae.tree import GRADES, build_tree

log = logging.getLogger(__name__)

Progress = Callable[[Mapping[str, float]], None]

_LOG_EVERY = 20
_PROBE_STEPS = 20
_CONTRAST_ROWS = 1024
_REFIT_ROWS = 262_144
_TERMS = ("loss", "reconstruction", "quantisation", "contrastive")


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message names the row or step and the mend."""


def train(
    embeddings: ArrayLike,
    taxonomy_paths: ArrayLike | None,
    config: TrainConfig | None = None,
    *,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Codebook:
    """Train a codebook.

    embeddings: (N, d) float32, an array or a memory map (it is read in place, never copied whole).
    taxonomy_paths: (N, depth) integers, coarse to fine, -1 or None where there is no (further) category;
    None for
        no taxonomy at all. A level's integers need only be unique under their parent.
    checkpoint_dir: folder for crash-safe checkpoints; a run found there is resumed and ends in the same
    codebook.
    progress: called every few steps with step, steps, loss terms, items_per_second, seconds_left.
    provenance: JSON-ready facts for the manifest (embedder id, taxonomy release, ...).

    Raises `ValueError` for unusable input (naming the row), `TrainingError` for a loss that is not finite
    (naming the step), `CollapsedCodebookError` if the result fails the quality gates, `CheckpointError` for a
    checkpoint of another run.
    """
    config = config or TrainConfig()
    with _threads(config.threads):
        run = _Run(embeddings, taxonomy_paths, config, checkpoint_dir, progress)
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
        self.hash, self.mean, self.scale = self._scan()
        self.resident: Tensor | None = None
        if device.type == "cuda" and 4 * self.n * self.dim < 0.5 * torch.cuda.mem_get_info(device)[0]:
            self.resident = self._moved(np.arange(self.n))

    def _scan(self) -> tuple[str, Tensor, float]:
        """One pass: hash, check for NaN and Inf, mean (d,) and root of the total variance."""
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
        mean = total / self.n
        variance = square / self.n - float(mean @ mean)
        if variance <= 1e-10 * max(square / self.n, 1e-30):
            raise ValueError("All embeddings are the same vector; a codebook needs products that differ.")
        return (
            digest.hexdigest(),
            torch.from_numpy(mean.astype(np.float32)).to(self.device),
            math.sqrt(variance),
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
    steps: int = 0
    planned: bool = True
    elapsed: float = 0.0
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
    ) -> None:
        self.reserve = 0.0
        self.began = time.monotonic()
        self.config, self.progress = config, progress
        self.folder = Path(checkpoint_dir) if checkpoint_dir is not None else None
        self.device = _device(config.device)
        self.data = _Catalogue(embeddings, self.device)
        self.tree = build_tree(taxonomy_paths, self.data.n)
        self.notes: list[str] = []
        self.train_rows, self.held_rows = self._split()
        self.lam = self._lambda()
        self.uniform, self.related = self._samplers()
        self.latent = min(config.latent_dim or 128, self.data.dim)
        self.state = _State(steps=self._planned_steps(), planned=config.max_seconds is None or config.steps is not None)
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
            "torch": torch.__version__,
        }

    def start(self) -> None:
        """Initialise in closed form, or resume from the checkpoint."""
        found = checkpoint.read(self.folder, self._identity()) if self.folder else None
        if found:
            tensors, state = found
            self.snap = tuple(state["snap"])
            self._build(len(tensors["model.offset"]))
            self._restore(tensors, state)
            return
        c = self.config
        rng = np.random.default_rng([c.seed, 3])
        self.init_rows = self.train_rows
        if len(self.train_rows) > c.init_rows:
            self.init_rows = np.sort(rng.choice(self.train_rows, c.init_rows, replace=False))
        generator = torch.Generator().manual_seed(c.seed)
        x = self.data.take(self.init_rows)
        axes = init.principal_axes(x, self.latent)
        z = x @ axes
        leaf = self.tree.leaf[self.init_rows] if c.taxonomy_init else np.full(len(z), -1)
        # Sizes are meant for all products; the sample at hand may be a part of them.
        share = len(z) / len(self.train_rows)
        group = share * init.group_size(c, len(self.train_rows))
        size = share * init.prototype_size(c, len(self.train_rows))
        # By the birthday bound a fifth of the products of a cell this large collide in the last level alone.
        largest = share * c.codebook_size / 2
        prototypes = init.group_products(z, leaf, size, group, c.cells_per_group, largest, generator) if size else None
        self.member = prototypes.member if prototypes else torch.zeros(0, dtype=torch.long, device=self.device)
        self.snap = init.snap_strengths(c, prototypes.compact) if prototypes else (0.0,) * c.levels
        self._build(len(prototypes.cell) if prototypes else 0)
        with torch.no_grad():
            self.model.encoder_linear.copy_(axes)
            self.model.decoder_linear.copy_(axes.T)
            if prototypes:
                init.set_keys(self.model, z, self.member)
                node = self.tree.node[self.init_rows] if c.taxonomy_init else self.tree.node[self.init_rows, :0]
                init.lay_paths(self.model, z, prototypes, node, c.kmeans_iterations, generator)
                init.set_rests(self.model, z, self.member, c.prefix_centring)
            init.fit_codewords(self.model, z, c.kmeans_iterations, generator)
        self._save()

    def _build(self, prototypes: int) -> None:
        c = self.config
        self.model = RQVAE(c, self.data.dim, self.latent, prototypes, self.snap).to(self.device)
        linear = [self.model.encoder_linear, self.model.decoder_linear]
        matrices = [p for m in (self.model.encoder, self.model.decoder) if m for p in m.weight]
        rest = [
            self.model.codewords,
            *(p for m in (self.model.encoder, self.model.decoder) if m for p in m.bias),
        ]
        groups = [
            {"params": linear, "weight_decay": 0.0, "peak": c.linear_learning_rate},
            {"params": matrices, "weight_decay": c.weight_decay, "peak": c.learning_rate},
            {"params": rest, "weight_decay": 0.0, "peak": c.learning_rate},
        ]
        self.optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0)
        self.used = torch.zeros(c.levels, c.codebook_size, device=self.device)

    # ---------------------------------------------------------------------- loop
    def loop(self) -> None:
        """Gradient steps until the budget ends or validation stops improving."""
        s, c = self.state, self.config
        self.ticked, self.ticked_step = time.monotonic(), s.step
        if s.step == 0 and not s.history:
            self._validate()
        while s.step < s.steps and not s.stopped:
            self._set_rate()
            self._step()
            s.step += 1
            if c.reset_every and s.step % c.reset_every == 0 and s.step < 0.8 * s.steps:
                self._reset_unused()
            if not s.planned and s.step >= _PROBE_STEPS:
                self._plan()
            if s.step % _LOG_EVERY == 0 or s.step == s.steps:
                self._report()
            if s.step % c.validate_every == 0 or s.step == s.steps:
                self._validate()
            if self.folder and s.step % c.checkpoint_every == 0:
                self._save()
            self._watch_clock()
        if s.step and s.history and s.history[-1].get("validated") != s.step:
            self._validate()
        self._save()

    def _set_rate(self) -> None:
        s = self.state
        warm = min((s.step + 1) / _PROBE_STEPS, 1.0)
        done = (s.step - _PROBE_STEPS) / max(s.steps - _PROBE_STEPS, 1) if s.planned else 0.0
        cosine = 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * warm * (0.02 + 0.98 * cosine)

    def _step(self) -> None:
        s, c = self.state, self.config
        even = self.uniform.batch(s.step)
        drawn = self.related.batch(s.step) if self.related else np.empty(0, np.int64)
        rows = np.concatenate([even, drawn])
        self.rows, self.drawn = rows, drawn
        x = self.data.take(rows)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            out = self.model(x)
        weight = torch.ones(len(rows), device=self.device)
        weight[len(even) :] = c.hierarchical_weight
        recon = losses.reconstruction(x, out.output.float(), weight)
        rq = losses.quantisation(out.z, self._goals(out), out.codes, self.model.codewords, c.commitment, weight)
        total = recon + rq
        contrast = torch.zeros((), device=self.device)
        if self.lam > 0:
            contrast = self._contrast(out.z, rows, len(even))
            total = total + self.lam * contrast
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.gradient_clip)
        self.optimiser.step()
        ones = torch.ones(len(rows), device=self.device)
        for level in range(c.levels):
            self.used[level].index_add_(0, out.codes[:, level], ones)
        self.spare = out.residuals
        self.pending.append(torch.stack([total.detach(), recon.detach(), rq.detach(), contrast.detach()]))

    def _goals(self, out: Forward) -> list[Tensor]:
        """What each chosen codeword should be: at snapped levels what is left of z itself, not of its
        prototype."""
        goals = list(out.residuals)
        rest = out.z.detach()
        for level in self.model.snapped:
            goals[level] = rest
            rest = rest - self.model.codewords[level].detach()[out.codes[:, level]]
        return goals

    def _contrast(self, z: Tensor, rows: NDArray[np.int64], even: int) -> Tensor:
        """The taxonomy term, on the hierarchical part of the batch or, without one, on its categorised
        rows."""
        at = np.arange(even if self.related else 0, len(rows))
        at = at[self.tree.leaf[rows[at]] >= 0][:_CONTRAST_ROWS]
        picked = rows[at]
        node = torch.from_numpy(self.tree.node[picked]).to(self.device)
        length = torch.from_numpy(self.tree.length[picked]).to(self.device)
        where = torch.from_numpy(at).to(self.device)
        return losses.contrastive(
            self.model.quantise(z[where])[0],
            self.model.codewords,
            losses.pair_grades(node, length),
            torch.from_numpy(picked).to(self.device),
            self.config.level_weights,
            self.config.negative_weight,
        )

    def _reset_unused(self) -> None:
        """Move codewords that no row chose since the last reset onto random residuals of this batch."""
        rng = np.random.default_rng([self.config.seed, 4, self.state.step])
        moments = self.optimiser.state[self.model.codewords]
        with torch.no_grad():
            for level in range(self.config.levels):
                dead = torch.nonzero(self.used[level] == 0)[:, 0]
                if not len(dead):
                    continue
                spare = self.spare[level]
                pick = torch.from_numpy(rng.integers(len(spare), size=len(dead))).to(self.device)
                self.model.codewords[level, dead] = spare[pick]
                for name in ("exp_avg", "exp_avg_sq"):
                    moments[name][level, dead] = 0
        self.used.zero_()

    # ------------------------------------------------------------------- clock
    def _elapsed(self) -> float:
        return self.state.elapsed + time.monotonic() - self.began

    def _reserve(self) -> float:
        """Seconds the refit after the loop will take, from the measured time of a pass over a few rows."""
        rows = self.train_rows[: min(4096, len(self.train_rows))]
        t = time.monotonic()
        with torch.no_grad():
            self.model.quantise(self.model.encode(self.data.take(rows)))
        per_row = (time.monotonic() - t) / len(rows)
        passes = self.config.refit_passes + 4
        return 3.0 + 1.3 * per_row * min(self.data.n, _REFIT_ROWS) * passes

    def _plan(self) -> None:
        """Turn the wall budget into a step budget, from the speed of the first steps."""
        s, c = self.state, self.config
        assert c.max_seconds is not None
        now = time.monotonic()
        per_step = (now - self.ticked_first) / (s.step - 1) if s.step > 1 else 0.05
        left = c.max_seconds - self._elapsed() - self._reserve()
        s.steps = max(s.step, s.step + int(0.95 * left / per_step))
        s.planned = True

    def _watch_clock(self) -> None:
        s, c = self.state, self.config
        if s.step == 1:
            self.ticked_first = time.monotonic()
        if c.max_seconds is None:
            return
        if s.step % _LOG_EVERY == 0 or s.step == 1:
            self.reserve = self._reserve() if s.step % 100 == 0 or s.step == 1 else self.reserve
        if self._elapsed() + self.reserve > c.max_seconds and s.step < s.steps:
            s.stopped = "wall budget"
            s.planned = True

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
        return dict(zip(_TERMS, values.mean(0).tolist(), strict=True))

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
            out = self.model(part)
            error.append((part - out.output).square().sum(1))
            codes.append(out.codes)
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
        tensors.update(used=self.used, member=self.member, init_rows=torch.from_numpy(self.init_rows))
        if self.pending:
            tensors["pending"] = torch.stack(self.pending)
        state = {**s.__dict__, "snap": self.snap, "elapsed": self._elapsed(), "run": self._identity()}
        checkpoint.write(self.folder, tensors, state)

    def _restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v.to(self.device) for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(under("model."))
        self.best = under("best.")
        checkpoint.restore_optimiser(self.optimiser, tensors)
        self.used, self.member = (tensors[k].to(self.device) for k in ("used", "member"))
        self.init_rows = tensors["init_rows"].numpy()
        self.pending = list(tensors["pending"].to(self.device)) if "pending" in tensors else []
        self.state = _State(**{k: v for k, v in state.items() if k not in ("run", "snap")})
        self.began = time.monotonic()
        self.ticked_first = self.began
        self.reserve = self._reserve()
        log.info("resumed at step %d of %d", self.state.step, self.state.steps)

    # -------------------------------------------------------------------- finish
    @torch.no_grad()
    def finish(self, provenance: Mapping[str, Any]) -> Codebook:
        """Best state, refit in closed form, gates, and the frozen codebook."""
        c, s = self.config, self.state
        if self.best:
            self.model.load_state_dict(self.best)
        generator = torch.Generator().manual_seed(c.seed + 1)
        if len(self.model.offset):
            latents = self._latents(self.init_rows)
            init.set_keys(self.model, latents, self.member)
            init.set_rests(self.model, latents, self.member, c.prefix_centring)
        rows = self.train_rows
        if len(rows) > _REFIT_ROWS:
            rows = np.sort(np.random.default_rng([c.seed, 5]).choice(rows, _REFIT_ROWS, replace=False))
        z = self._latents(rows)
        if c.refit_passes:
            codes = init.fit_codewords(self.model, z, c.refit_passes, generator, warm=True)
        else:
            codes = torch.cat([self.model.quantise(part)[1] for part in z.split(8192)])
        held = self.data.take(self.held_rows)
        held_q = self.model.quantise(self.model.encode(held))
        held_rest = held - self.model.decode(held_q[2])
        rest = torch.cat([self._rest(part, code) for part, code in _parts(rows, codes)])
        distinct = self._distinct(rows)
        readout, ridge, error = init.least_squares_readout(codes, rest, c.codebook_size, held_q[1], held_rest)
        relative = error / float(held.square().sum(1).mean())
        health = gate.measure(codes.cpu().numpy(), c.codebook_size, distinct, relative)
        gate.refuse_collapse(health, c.codebook_size, c.min_usage, c.max_relative_error, self.lam)
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
                "chosen_step": s.best_step,
                "stopped": s.stopped or "step budget",
                "epochs": s.step * self.uniform.size / len(self.train_rows),
                "lambda_contrastive": self.lam,
                "prototypes": len(self.model.offset),
                "snap": list(self.snap),
                "readout_ridge": ridge,
                "device": str(self.device),
                "notes": self.notes,
            },
            "metrics": health.to_dict(),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
            },
            "provenance": dict(provenance),
        }
        arrays = export(self.model, self.data.mean, self.data.scale, readout)
        bound = self._margin_bound(arrays)
        book = Codebook(arrays, inference_config(self.model, bound), manifest, s.history)
        book.manifest["run"]["seconds"] = round(self._elapsed(), 2)
        return book

    def _latents(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.cat([self.model.encode(self.data.take(part)) for part in _chunks(rows)])

    def _rest(self, rows: NDArray[np.int64], codes: Tensor) -> Tensor:
        return self.data.take(rows) - self.model.decode(init.apply_table(self.model.codewords, codes))

    def _distinct(self, rows: NDArray[np.int64]) -> int:
        """Number of different vectors among the rows, told apart by one random projection."""
        ray = np.random.default_rng([self.config.seed, 6]).standard_normal(self.data.dim)
        seen = [np.asarray(self.data.raw[part], dtype=np.float64) @ ray for part in _chunks(rows)]
        return len(np.unique(np.round(np.concatenate(seen) / self.data.scale, 9)))

    def _margin_bound(self, arrays: Mapping[str, NDArray[Any]]) -> float:
        """Below which margin float32 cannot be trusted: 20 times the worst error seen on held-out
        products."""
        probe = Codebook(arrays, inference_config(self.model, -1.0))
        sure = Codebook(arrays, inference_config(self.model, math.inf))
        x = np.asarray(self.data.raw[self.held_rows[:2048]], dtype=np.float32)
        a, b = probe.quantise(x), sure.quantise(x)
        same = (a.codes == b.codes).all(axis=1)
        worst = float(np.abs(a.margin[same] - b.margin[same]).max(initial=0.0))
        return max(1e-5, 20 * worst)


def _chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), 8192):
        yield rows[start : start + 8192]


def _parts(rows: NDArray[np.int64], codes: Tensor) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    yield from zip(_chunks(rows), codes.split(8192), strict=True)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"TrainConfig.device is {name!r}, but torch sees no GPU here; use 'cpu' or 'auto'.")
    return torch.device(name)
