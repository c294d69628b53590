"""The RQ-VAE as a torch module, in units of the catalogue's variance.

Belongs here: parameters, tables and the forward pass. The module mirrors `codebook.Codebook`, which is its frozen
form; it works on (x - mean) / scale, and `export` folds mean and scale back in.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sid_pipeline.rqvae.config import TrainConfig

# Rows whose (rows, prototypes) scores are made at once: they stay within cache.
_ROWS = 1024


@dataclass(frozen=True)
class Quantisation:
    """What B latents became, without gradient: prototype, cell (B,), zeros where nothing is snapped; codes
    (B, levels); rests, per deep level what it quantised (B, D); q (B, D), what all codes together stand for."""

    prototype: Tensor
    cell: Tensor
    codes: Tensor
    rests: list[Tensor]
    q: Tensor

    def at(self, rows: Tensor) -> Quantisation:
        """Of some rows only."""
        return Quantisation(
            self.prototype[rows], self.cell[rows], self.codes[rows], [rest[rows] for rest in self.rests], self.q[rows]
        )

    @staticmethod
    def cat(parts: list[Quantisation]) -> Quantisation:
        """Several batches as one."""
        names = ("prototype", "cell", "codes", "q")
        whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return Quantisation(rests=[torch.cat(r) for r in zip(*(part.rests for part in parts), strict=True)], **whole)


class MLP(nn.Module):
    """ReLU layers whose last one starts at zero, so that the linear path beside them is what training starts
    from."""

    def __init__(self, widths: list[int], generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.ParameterList()
        self.bias = nn.ParameterList()
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            last = i == len(widths) - 2
            w = torch.zeros(a, b) if last else torch.randn(a, b, generator=generator) * (2 / a) ** 0.5
            self.weight.append(nn.Parameter(w))
            self.bias.append(nn.Parameter(torch.zeros(b)))

    def forward(self, h: Tensor) -> Tensor:
        for i, (w, b) in enumerate(zip(self.weight, self.bias, strict=True)):
            h = torch.addmm(b, h, w)
            if i < len(self.weight) - 1:
                h = torch.relu(h)
        return h


class RQVAE(nn.Module):
    """Linear-plus-MLP encoder and decoder around prototypes, their cells, and a residual quantiser below them.

    Gradients move encoder, decoder and keys; the tables (cell means, codewords, readouts) are buffers that the trainer
    moves to the averages they stand for (van den Oord et al. 2017, appendix A.1).

    cells: number of cells of each prototype, in order; empty where nothing is snapped.
    """

    means: Tensor
    codewords: Tensor
    prototype_readout: Tensor
    readout: Tensor
    paths: Tensor
    cell_codes: Tensor
    start: Tensor

    def __init__(self, config: TrainConfig, dim: int, latent: int, snapped: int, cells: list[int]) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(config.seed)
        self.levels, self.size, self.snapped = config.levels, config.codebook_size, snapped
        self.prototypes = len(cells)
        self.most_cells = max(cells, default=0)
        self.encoder_linear = nn.Parameter(torch.zeros(dim, latent))
        self.decoder_linear = nn.Parameter(torch.zeros(latent, dim))
        widths = list(config.hidden)
        self.encoder = MLP([dim, *widths, latent], g) if widths else None
        self.decoder = MLP([latent, *reversed(widths), dim], g) if widths else None
        self.keys = nn.Parameter(torch.zeros(latent, len(cells)))
        self.offset = nn.Parameter(torch.zeros(len(cells)))
        self.register_buffer("means", torch.zeros(sum(cells), latent))
        self.register_buffer("codewords", torch.zeros(config.levels, config.codebook_size, latent))
        self.register_buffer("prototype_readout", torch.zeros(len(cells), dim))
        self.register_buffer("readout", torch.zeros(config.levels - snapped, config.codebook_size, dim))
        self.register_buffer("paths", torch.zeros(len(cells), min(snapped, 2), dtype=torch.long))
        self.register_buffer("cell_codes", torch.zeros(sum(cells), dtype=torch.long))
        self.register_buffer("start", torch.tensor([0, *itertools.accumulate(cells)]))

    def encode(self, x: Tensor) -> Tensor:
        """Latent (B, D) of centred, scaled x (B, d)."""
        z = x @ self.encoder_linear
        return z if self.encoder is None else z + self.encoder(x)

    def decode(self, q: Tensor, prototype: Tensor, codes: Tensor) -> Tensor:
        """Centred, scaled output (B, d) of a latent q (B, D) under its prototype (B,) and codes (B, levels)."""
        y = q @ self.decoder_linear
        if self.decoder is not None:
            y = y + self.decoder(q)
        if self.snapped:
            y = y + self.prototype_readout[prototype]
        for level in range(self.snapped, self.levels):
            y = y + self.readout[level - self.snapped][codes[:, level]]
        return y

    def logits(self, z: Tensor) -> Tensor:
        """How much z (B, D) is like each prototype: (B, P), a log posterior up to a constant."""
        return torch.addmm(self.offset, z, self.keys)

    @torch.no_grad()
    def quantise(self, z: Tensor) -> Quantisation:
        """Codes of latents z (B, D), and what they stand for."""
        return Quantisation.cat([self._quantise(part) for part in z.split(_ROWS)])

    def _quantise(self, z: Tensor) -> Quantisation:
        prototype = cell = torch.zeros(len(z), dtype=torch.long, device=z.device)
        codes = []
        q = torch.zeros_like(z)
        if self.snapped:
            prototype = _argmax(self.logits(z))
            cell = self.nearest_cell(z, prototype)
            q = self.means[cell]
            codes = list(self.paths[prototype].T)
            if self.snapped == 3:
                codes.append(self.cell_codes[cell])
        rests = []
        for level in range(self.snapped, self.levels):
            words = self.codewords[level]
            rests.append(z - q)
            code = torch.addmm(words.square().sum(1), rests[-1], words.T, alpha=-2).argmin(1)
            q = q + words[code]
            codes.append(code)
        return Quantisation(prototype, cell, torch.stack(codes, 1), rests, q)

    def nearest_cell(self, z: Tensor, prototype: Tensor) -> Tensor:
        """The cell (B,) of its prototype (B,) whose mean is nearest to z (B, D)."""
        if self.most_cells == 1:
            return self.start[prototype]
        return self.start[prototype] + self.cell_distances(z, prototype).argmin(1)

    def cell_distances(self, z: Tensor, prototype: Tensor) -> Tensor:
        """Squared distances (B, most cells) of z to the cells of its prototype, infinite where it has fewer."""
        first, count = self.start[prototype], self.start[prototype + 1] - self.start[prototype]
        nth = torch.arange(self.most_cells, device=z.device)
        index = (first[:, None] + nth).clamp_max(len(self.means) - 1)
        gap = (self.means[index] - z[:, None]).square().sum(2)
        return gap.masked_fill(nth >= count[:, None], torch.inf)


def _argmax(scores: Tensor) -> Tensor:
    """(B,) place of the largest of each row. On a CPU by numpy, whose argmax is vectorised and torch's is not."""
    return scores.argmax(1) if scores.is_cuda else torch.from_numpy(scores.numpy().argmax(1))


def fits(model: RQVAE, arrays: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether the tensors of a codebook have the shapes of this model's."""
    mine = export(model, torch.zeros(len(model.encoder_linear)), 1.0)
    return {name: a.shape for name, a in mine.items()} == {name: a.shape for name, a in arrays.items()}


@torch.no_grad()
def restore(model: RQVAE, arrays: Mapping[str, NDArray[np.generic]], scale: float) -> None:
    """The inverse of `export`, for a catalogue of this scale around the codebook's own mean."""
    last = len(model.encoder.weight) - 1 if model.encoder is not None else 0
    names = {
        "encoder.linear": (model.encoder_linear, scale),
        "codewords": (model.codewords, 1),
        "decoder.linear": (model.decoder_linear, 1 / scale),
        "readout": (model.readout, 1 / scale),
        "prototype.keys": (model.keys, 1),
        "prototype.offset": (model.offset, 1),
        "prototype.paths": (model.paths, 1),
        "prototype.readout": (model.prototype_readout, 1 / scale),
        "cell.start": (model.start, 1),
        "cell.means": (model.means, 1),
        "cell.codes": (model.cell_codes, 1),
    }
    if model.encoder is not None and model.decoder is not None:
        for i in range(last + 1):
            names[f"encoder.weight.{i}"] = (model.encoder.weight[i], scale if i == 0 else 1)
            names[f"encoder.bias.{i}"] = (model.encoder.bias[i], 1)
            names[f"decoder.weight.{i}"] = (model.decoder.weight[i], 1 / scale if i == last else 1)
            names[f"decoder.bias.{i}"] = (model.decoder.bias[i], 1 / scale if i == last else 1)
    for name, (tensor, factor) in names.items():
        if name in arrays:
            tensor.copy_(torch.from_numpy(np.array(arrays[name])) * factor)


def export(model: RQVAE, mean: Tensor, scale: float) -> dict[str, NDArray[np.generic]]:
    """The tensors of `codebook.Codebook` for raw vectors."""
    out = {
        "mean": mean,
        "encoder.linear": model.encoder_linear / scale,
        "codewords": model.codewords,
        "decoder.linear": model.decoder_linear * scale,
        "readout": model.readout * scale,
    }
    if model.snapped:
        out |= {
            "prototype.keys": model.keys,
            "prototype.offset": model.offset,
            "prototype.paths": model.paths,
            "prototype.readout": model.prototype_readout * scale,
            "cell.start": model.start,
            "cell.means": model.means,
        }
    if model.snapped == 3:
        out["cell.codes"] = model.cell_codes
    if model.encoder is not None and model.decoder is not None:
        last = len(model.encoder.weight) - 1
        for i in range(last + 1):
            out[f"encoder.weight.{i}"] = model.encoder.weight[i] / (scale if i == 0 else 1)
            out[f"encoder.bias.{i}"] = model.encoder.bias[i]
            out[f"decoder.weight.{i}"] = model.decoder.weight[i] * (scale if i == last else 1)
            out[f"decoder.bias.{i}"] = model.decoder.bias[i] * (scale if i == last else 1)
    return {name: t.detach().cpu().numpy() for name, t in out.items()}
