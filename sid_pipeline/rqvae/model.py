"""The RQ-VAE as a torch module, in units of the catalogue's variance.

Belongs here: parameters and the forward pass. The module mirrors `codebook.Codebook`, which is its frozen
form; it works on (x - mean) / scale, and `export` folds mean and scale back in.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sid_pipeline.rqvae.config import TrainConfig

_ROWS = 1024


@dataclass(frozen=True)
class Forward:
    """One pass over B rows: z (B, D); residuals, per level what was quantised (B, D), and codes (B, levels),
    both
    without gradient; output (B, d)."""

    z: Tensor
    residuals: list[Tensor]
    codes: Tensor
    output: Tensor


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
    """Linear-plus-MLP encoder and decoder around a residual quantiser with snapped coarse levels."""

    keys: Tensor
    offset: Tensor
    rests: Tensor
    paths: Tensor

    def __init__(self, config: TrainConfig, dim: int, latent: int, prototypes: int, snap: tuple[float, ...]) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(config.seed)
        self.levels, self.snap = config.levels, snap
        self.snapped = [level for level, s in enumerate(self.snap) if s > 0]
        self.encoder_linear = nn.Parameter(torch.zeros(dim, latent))
        self.decoder_linear = nn.Parameter(torch.zeros(latent, dim))
        widths = list(config.hidden)
        self.encoder = MLP([dim, *widths, latent], g) if widths else None
        self.decoder = MLP([latent, *reversed(widths), dim], g) if widths else None
        self.codewords = nn.Parameter(torch.zeros(config.levels, config.codebook_size, latent))
        self.register_buffer("keys", torch.zeros(latent, prototypes))
        self.register_buffer("offset", torch.zeros(prototypes))
        self.register_buffer("rests", torch.zeros(prototypes, latent))
        self.register_buffer("paths", torch.zeros(prototypes, len(self.snapped), dtype=torch.long))

    def encode(self, x: Tensor) -> Tensor:
        """Latent (B, D) of centred, scaled x (B, d)."""
        z = x @ self.encoder_linear
        return z if self.encoder is None else z + self.encoder(x)

    def decode(self, q: Tensor) -> Tensor:
        """Centred, scaled output (B, d) of a latent q (B, D)."""
        y = q @ self.decoder_linear
        return y if self.decoder is None else y + self.decoder(q)

    def targets(self, z: Tensor) -> list[Tensor]:
        """Per level, what is quantised before earlier codewords are taken off: (B, D) each."""
        if not self.snapped:
            return [z] * self.levels
        # Split so that the (rows, prototypes) matrix stays within cache and the allocator's reach.
        weights = [bounded_softmax(torch.addmm(self.offset, part, self.keys)) for part in z.split(_ROWS)]
        stands_for = torch.zeros_like(self.keys.T)
        targets = []
        for level in self.snapped:
            stands_for = stands_for + self.codewords[level][self.paths[:, level]]
            denoised = torch.cat([w @ stands_for for w in weights])
            targets.append(z + self.snap[level] * (denoised - z))
        deep = z - torch.cat([w @ self.rests for w in weights])
        return targets + [deep] * (self.levels - len(targets))

    def quantise(self, z: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Per level what was quantised (B, D); codes (B, levels); the sum of codewords (B, D)."""
        taken = torch.zeros_like(z)
        residuals, codes = [], []
        for level, target in enumerate(self.targets(z)):
            words = self.codewords[level].detach()
            residual = target - taken
            code = torch.addmm(words.square().sum(1), residual.detach(), words.T, alpha=-2).argmin(dim=1)
            taken = taken + words[code]
            residuals.append(residual)
            codes.append(code)
        return residuals, torch.stack(codes, 1), taken

    def forward(self, x: Tensor) -> Forward:
        """The pass with a straight-through gradient over the quantiser (van den Oord et al. 2017)."""
        z = self.encode(x)
        with torch.no_grad():
            residuals, codes, quantised = self.quantise(z)
        return Forward(z, residuals, codes, self.decode(z + (quantised - z).detach()))


def bounded_softmax(logits: Tensor, floor: float = -30.0) -> Tensor:
    """Softmax over the last axis, no weight below e^floor of the largest: denormals would slow every later
    product."""
    w = (logits - logits.detach().max(dim=-1, keepdim=True).values).clamp_min(floor).exp()
    return w / w.sum(dim=-1, keepdim=True)


def export(model: RQVAE, mean: Tensor, scale: float, readout: Tensor) -> dict[str, NDArray[np.generic]]:
    """The tensors of `codebook.Codebook` for raw vectors; readout (levels, K, d) in scaled units."""
    out = {
        "mean": mean,
        "encoder.linear": model.encoder_linear / scale,
        "prototype.keys": model.keys,
        "prototype.offset": model.offset,
        "prototype.rests": model.rests,
        "prototype.paths": model.paths,
        "codewords": model.codewords,
        "decoder.linear": model.decoder_linear * scale,
        "readout": readout * scale,
    }
    if model.encoder is not None and model.decoder is not None:
        last = len(model.encoder.weight) - 1
        for i in range(last + 1):
            out[f"encoder.weight.{i}"] = model.encoder.weight[i] / (scale if i == 0 else 1)
            out[f"encoder.bias.{i}"] = model.encoder.bias[i]
            out[f"decoder.weight.{i}"] = model.decoder.weight[i] * (scale if i == last else 1)
            out[f"decoder.bias.{i}"] = model.decoder.bias[i] * (scale if i == last else 1)
    return {name: t.detach().cpu().numpy() for name, t in out.items()}


def inference_config(model: RQVAE, margin_bound: float) -> dict[str, object]:
    """The settings of `codebook.Codebook` for this model."""
    return {
        "snap": list(model.snap),
        "margin_bound": margin_bound,
    }
