"""The frozen codebook: vectors to codes and back, and the folder it lives in.

Belongs here: inference and the artefact, in numpy alone, so that a Spark worker needs neither torch nor the
trainer. Does not belong here: anything that changes a codebook.

Inference is a pure function of one vector x:

    z   = (x - mean) A + MLP(x - mean)                        latent, (D,)
    w   = softmax(z K + b)                                    which prototypes x is like
    t_l = (1 - g_l) z + g_l sum_k w_k s_l(k)                  what a snapped level quantises, g_l > 0
    t_l = z - sum_k w_k e(k)                                  what a deeper level quantises
    c_l = argmin_c |t_l - (q_1 + ... + q_{l-1}) - C_l[c]|^2   residual quantisation, q_l = C_l[c_l]

where prototype k carries a path of codes, s_l(k) is the sum of the codewords on its path up to level l, and
e(k) is what the whole path leaves of the prototype, which codes below a prefix need not repeat;
and decoding is mean + q A' + MLP'(q) + sum_l R_l[c_l], with q = sum_l q_l and R the least-squares readout.

Codes do not depend on the batch, the order, the BLAS or the machine: products are computed in float32, and a
row whose margin to another outcome is below `margin_bound` is computed again, wholly, in float64; exact ties
go to the lowest index.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as dump_tensors

FORMAT = 1
TENSORS, CONFIG, HISTORY, MANIFEST = "codebook.safetensors", "config.json", "history.csv", "manifest.json"
_CHUNK = 1024
_TIE = 1e-12
_FAR = -30.0
_TINY = 1e-30

Arrays = Mapping[str, NDArray[Any]]


class CodebookError(ValueError):
    """A codebook folder or its input cannot be used; the message names the file or row and the mend."""


@dataclass(frozen=True)
class Quantised:
    """What `Codebook.quantise` returns for N vectors.

    codes: (N, levels) int32, coarse to fine.
    distance: (N,) float32, squared distance between the latent vector and the sum of its codewords.
    margin: (N,) float32, smallest relative lead over levels of the chosen codeword over the next:
        (second - best) / (|residual|^2 + max |codeword|^2). Near 0 the product sits on a border.
    """

    codes: NDArray[np.int32]
    distance: NDArray[np.float32]
    margin: NDArray[np.float32]


class Codebook:
    """A trained residual quantiser, immutable.

    arrays: the tensors named in the module's docstring: `mean` (d,), `encoder.linear` (d, D),
        `encoder.weight.i` / `encoder.bias.i`, `prototype.keys` (D, P), `prototype.offset` (P,),
        `prototype.rests` (P, D),
        `prototype.paths` (P, snapped levels; integers), `codewords` (levels, K, D), `decoder.linear` (D, d),
        `decoder.weight.i` / `decoder.bias.i`, `readout` (levels, K, d); float32 but for the paths.
    config: `snap` (levels,) strengths, `margin_bound`.
    manifest: how it was made (free form); `id` and file hashes are added on saving.
    history: one row of numbers per logged step.
    """

    def __init__(
        self,
        arrays: Arrays,
        config: Mapping[str, Any],
        manifest: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, float]] = (),
    ) -> None:
        self._arrays = {
            name: np.ascontiguousarray(a, dtype=np.int32 if name == "prototype.paths" else np.float32)
            for name, a in sorted(arrays.items())
        }
        for a in self._arrays.values():
            a.flags.writeable = False
        self._config = {"format": FORMAT, **config}
        self.history = [dict(row) for row in history]
        self._double: dict[str, NDArray[Any]] | None = None
        self._depth = {side: sum(n.startswith(f"{side}.weight.") for n in arrays) for side in ("encoder", "decoder")}
        self.levels, self.codebook_size, self.latent_dim = self._arrays["codewords"].shape
        self.dim = len(self._arrays["mean"])
        self._tensor_bytes = dump_tensors(self._arrays)
        self._config_bytes = _json_bytes(self._config)
        self.id: str = hashlib.sha256(self._config_bytes + self._tensor_bytes).hexdigest()[:16]
        self.manifest: dict[str, Any] = {**(manifest or {}), "id": self.id, "format": FORMAT}

    def __getstate__(self) -> dict[str, Any]:
        """Small when sent to a worker: the double-precision copy is rebuilt there."""
        return {**self.__dict__, "_double": None}

    def __repr__(self) -> str:
        return f"Codebook({self.id}: {self.dim} -> {self.levels} x {self.codebook_size})"

    @property
    def arrays(self) -> Arrays:
        """The tensors by name, read-only."""
        return dict(self._arrays)

    @property
    def config(self) -> dict[str, Any]:
        """The settings inference needs."""
        return dict(self._config)

    # ------------------------------------------------------------------ inference
    def encode(self, x: ArrayLike) -> NDArray[np.int32]:
        """Codes (N, levels) int32 of vectors x (N, d); the same for a vector in any batch, order or machine.

        Raises `CodebookError` for a wrong shape or a row with NaN or Inf.
        """
        return self.quantise(x).codes

    def quantise(self, x: ArrayLike) -> Quantised:
        """Codes with distance and margin of vectors x (N, d). Memory beyond the result is bounded."""
        vectors = np.asarray(x)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise CodebookError(
                f"This codebook takes vectors of shape (N, {self.dim}); got {vectors.shape}. "
                "Encode with the embedder that its manifest names."
            )
        n = len(vectors)
        out = Quantised(np.empty((n, self.levels), np.int32), np.empty(n, np.float32), np.empty(n, np.float32))
        for start in range(0, n, _CHUNK):
            rows = slice(start, min(start + _CHUNK, n))
            part = np.ascontiguousarray(vectors[rows], dtype=np.float32)
            finite = np.isfinite(part).all(axis=1)
            if not finite.all():
                row = start + int(np.argmin(finite))
                raise CodebookError(f"Row {row} holds NaN or Inf; embed that product again before encoding.")
            codes, distance, margin = self._quantise(part, self._arrays, tie=0.0)
            near = np.flatnonzero(margin <= self._config["margin_bound"])
            if len(near):
                exact = self._quantise(part[near].astype(np.float64), self._in_double(), tie=_TIE)
                codes[near], distance[near], margin[near] = exact
            out.codes[rows], out.distance[rows], out.margin[rows] = codes, distance, margin
        return out

    def latent(self, x: ArrayLike) -> NDArray[np.float32]:
        """Latent vectors (N, D) of x (N, d), before snapping and quantisation."""
        return self._latent(np.ascontiguousarray(x, dtype=np.float32), self._arrays)

    def decode(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Vectors (N, d) float32 of codes (N, levels): the reconstruction of the products that carry them."""
        index = self._checked(codes)
        if index.shape[1] != self.levels:
            raise CodebookError(f"decode takes all {self.levels} codes of a product; got {index.shape[1]}.")
        a = self._arrays
        q = self.quantised(index)
        x: NDArray[Any] = q @ a["decoder.linear"] + a["mean"]
        if self._depth["decoder"]:
            x += _mlp(q, a, "decoder", self._depth["decoder"])
        for level in range(self.levels):
            x += a["readout"][level][index[:, level]]
        return x

    def quantised(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Sum of codewords (N, D) in latent space for codes (N, 1..levels); fewer levels give the prefix."""
        index = self._checked(codes)
        q = np.zeros((len(index), self.latent_dim), np.float32)
        for level in range(index.shape[1]):
            q += self._arrays["codewords"][level][index[:, level]]
        return q

    def _checked(self, codes: ArrayLike) -> NDArray[np.int64]:
        index = np.asarray(codes)
        if index.ndim != 2 or not 1 <= index.shape[1] <= self.levels or not np.issubdtype(index.dtype, np.integer):
            raise CodebookError(f"Codes are integers of shape (N, {self.levels}); got {index.dtype} {index.shape}.")
        if index.size and not (index.min() >= 0 and index.max() < self.codebook_size):
            raise CodebookError(f"Codes lie in 0..{self.codebook_size - 1}; got {index.min()}..{index.max()}.")
        return index.astype(np.int64)

    def _in_double(self) -> dict[str, NDArray[Any]]:
        if self._double is None:
            used = {n: a for n, a in self._arrays.items() if n != "readout" and not n.startswith("decoder")}
            self._double = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in used.items()}
        return self._double

    def _latent(self, x: NDArray[Any], a: Arrays) -> NDArray[Any]:
        centred = x - a["mean"]
        z = centred @ a["encoder.linear"]
        if self._depth["encoder"]:
            z += _mlp(centred, a, "encoder", self._depth["encoder"])
        return z

    def _targets(self, z: NDArray[Any], a: Arrays) -> list[NDArray[Any]]:
        """What each level quantises, before earlier codewords are taken off: (N, D) per level."""
        strengths = self._config["snap"]
        if not any(strengths):
            return [z] * self.levels
        w = _softmax(z @ a["prototype.keys"] + a["prototype.offset"])
        stands_for = np.zeros((w.shape[1], self.latent_dim), z.dtype)
        targets = []
        for level, strength in enumerate(strengths):
            if strength == 0:
                targets.append(z - w @ a["prototype.rests"])
                continue
            stands_for += a["codewords"][level][a["prototype.paths"][:, level]]
            targets.append(z + z.dtype.type(strength) * (w @ stands_for - z))
        return targets

    def _quantise(self, x: NDArray[Any], a: Arrays, tie: float) -> tuple[NDArray[np.int32], NDArray[Any], NDArray[Any]]:
        z = self._latent(x, a)
        taken = np.zeros_like(z)
        codes = np.empty((len(x), self.levels), np.int32)
        margin = np.full(len(x), np.inf, z.dtype)
        every = np.arange(len(x))
        for level, target in enumerate(self._targets(z, a)):
            words = a["codewords"][level]
            residual = target - taken
            norm = np.einsum("kd,kd->k", words, words)
            scores = norm - 2 * (residual @ words.T)
            code = scores.argmin(axis=1)
            best = scores[every, code].copy()
            scale = np.einsum("nd,nd->n", residual, residual) + norm.max() + _TINY
            if tie:
                code = (scores <= (best + tie * scale)[:, None]).argmax(axis=1)
            scores[every, code] = np.inf
            np.minimum(margin, (scores.min(axis=1) - best) / scale, out=margin)
            codes[:, level] = code
            taken += words[code]
        rest = z - taken
        return codes, np.einsum("nd,nd->n", rest, rest), margin

    # ------------------------------------------------------------------ artefact
    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the codebook into `folder`; the manifest comes last, so a folder with one is whole.

        A folder that already holds this codebook is left as it is; one that holds another is refused.
        """
        target = Path(folder)
        if (target / MANIFEST).exists():
            there = json.loads((target / MANIFEST).read_text())
            if there.get("id") == self.id:
                return target
            raise CodebookError(f"{target} already holds codebook {there.get('id')}; save {self.id} elsewhere.")
        target.mkdir(parents=True, exist_ok=True)
        files = {TENSORS: self._tensor_bytes, CONFIG: self._config_bytes, HISTORY: _csv_bytes(self.history)}
        for name, data in files.items():
            _write(target / name, data)
        self.manifest["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        _write(target / MANIFEST, _json_bytes(self.manifest))
        return target

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Codebook:
        """The codebook in `folder`, every file checked against the manifest's hashes.

        Raises `CodebookError` that names the file which is missing, changed or unreadable.
        """
        source = Path(folder)
        manifest = _read_json(source / MANIFEST, "the codebook was not written to its end; train or copy it again")
        if manifest.get("format") != FORMAT:
            raise CodebookError(
                f"{source / MANIFEST}: format {manifest.get('format')!r}, this version reads {FORMAT}; "
                "load it with the version that wrote it, or train again."
            )
        data = {}
        for name in (TENSORS, CONFIG, HISTORY):
            data[name] = _read(source / name, "copy the whole folder again")
            if hashlib.sha256(data[name]).hexdigest() != manifest.get("files", {}).get(name):
                raise CodebookError(f"{source / name} differs from what the manifest recorded; copy it again.")
        try:
            arrays = load_tensors(data[TENSORS])
        except SafetensorError as e:
            raise CodebookError(f"{source / TENSORS} is no safetensors file ({e}); copy it again.") from e
        book = cls(arrays, json.loads(data[CONFIG]), manifest, _parse_csv(data[HISTORY]))
        if book.id != manifest.get("id"):
            raise CodebookError(f"{source / MANIFEST} names codebook {manifest.get('id')}, its files make {book.id}.")
        return book


def _mlp(h: NDArray[Any], a: Arrays, side: str, depth: int) -> NDArray[Any]:
    for i in range(depth):
        h = h @ a[f"{side}.weight.{i}"] + a[f"{side}.bias.{i}"]
        if i < depth - 1:
            np.maximum(h, 0, out=h)
    return h


def _softmax(w: NDArray[Any]) -> NDArray[Any]:
    """Over the last axis, in place."""
    w -= w.max(axis=1, keepdims=True)
    # Denormal weights would make the products after this twenty times slower.
    np.maximum(w, _FAR, out=w)
    np.exp(w, out=w)
    w /= w.sum(axis=1, keepdims=True)
    return w


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _csv_bytes(rows: Sequence[Mapping[str, float]]) -> bytes:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns)] + [",".join(repr(row[c]) if c in row else "" for c in columns) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def _parse_csv(data: bytes) -> list[dict[str, float]]:
    head, *lines = data.decode().splitlines() or [""]
    columns = head.split(",")
    return [{c: float(v) for c, v in zip(columns, line.split(","), strict=True) if v} for line in lines]


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    os.replace(part, path)


def _read(path: Path, mend: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise CodebookError(f"{path} cannot be read ({e.strerror}): {mend}.") from e


def _read_json(path: Path, mend: str) -> dict[str, Any]:
    try:
        return dict(json.loads(_read(path, mend)))
    except ValueError as e:
        if isinstance(e, CodebookError):
            raise
        raise CodebookError(f"{path} is no valid JSON ({e}): {mend}.") from e
