"""The frozen codebook: vectors to codes and back, and the folder it lives in.

Belongs here: inference and the artefact, in numpy alone, so that a Spark worker needs neither torch nor the
trainer. Does not belong here: anything that changes a codebook.

Inference is a pure function of one vector x. With s snapped levels (0 to 3):

    z   = (x - mean) A + MLP(x - mean)              latent, (D,)
    k   = argmax_k z . K_k + b_k                    the prototype that x is most like
    c_1, c_2 = path of k                            the first snapped levels (at most two) take its codes
    j   = argmin_{j of k} |z - m_j|^2               the cell of that prototype; c_3 = its code where s = 3
    r   = z - m_j
    c_l = argmin_c |r - C_l[c]|^2,  r -= C_l[c_l]   each deeper level quantises what is left

Without snapped levels r = z at first: plain residual quantisation. With fewer than three, a prototype has one
cell, its mean. A product is coded relative to its cell's mean, so no deep codeword is spent on what is common to a
prefix. Decoding looks the mean up by the codes, q = m_j + sum of deep codewords, and gives
mean + q A' + MLP'(q) + R_k + sum_{l > s} R_l[c_l], with R the least-squares readouts. The codewords of snapped levels
are the additive table that comes nearest to the means: they stand for a prefix, and for paths nothing takes.

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

FORMAT = 2
TENSORS, CONFIG, HISTORY, MANIFEST = "codebook.safetensors", "config.json", "history.csv", "manifest.json"
INTEGERS = ("prototype.paths", "cell.start", "cell.codes")
_ROWS = 512
_TIE = 1e-12
_TINY = 1e-30

Arrays = Mapping[str, NDArray[Any]]


class CodebookError(ValueError):
    """A codebook folder or its input cannot be used; the message names the file or row and the mend."""


@dataclass(frozen=True)
class Quantised:
    """What `Codebook.quantise` returns for N vectors.

    codes: (N, levels) int32, coarse to fine.
    distance: (N,) float32, squared distance in latent space between the vector and what its codes stand for.
    margin: (N,) float32, smallest relative lead of a choice (prototype, cell, codewords) over the next best:
        their difference over the size of the numbers compared. Near 0 the product sits on a border.
    """

    codes: NDArray[np.int32]
    distance: NDArray[np.float32]
    margin: NDArray[np.float32]


class Codebook:
    """A trained residual quantiser, immutable.

    arrays: the tensors named in the module's docstring, float32, or int32 where said. `mean` (d,),
        `encoder.linear` (d, D), `encoder.weight.i` / `encoder.bias.i`, `codewords` (levels, K, D),
        `decoder.linear` (D, d), `decoder.weight.i` / `decoder.bias.i`, `readout` (levels - s, K, d); with snapped
        levels also `prototype.keys` (D, P), `prototype.offset` (P,), `prototype.paths` (P, min(s, 2)) int32, each
        path once, `prototype.readout` (P, d), `cell.start` (P + 1,) int32, `cell.means` (cells, D), cells in the
        order of their prototypes, and with s = 3 `cell.codes` (cells,) int32, unlike within a prototype.
    config: `snapped_levels`, `margin_bound`; from training also `distance_quantiles` (of `distance` over held-out
        products, by quantile) and `ood_distance`, above which a vector is unlike anything trained on.
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
            name: np.ascontiguousarray(a, dtype=np.int32 if name in INTEGERS else np.float32)
            for name, a in sorted(arrays.items())
        }
        for a in self._arrays.values():
            a.flags.writeable = False
        self._config = {"format": FORMAT, **config}
        self.history = [dict(row) for row in history]
        self._engines: dict[type[np.floating[Any]], _Engine] = {}
        self.levels, self.codebook_size, self.latent_dim = self._arrays["codewords"].shape
        self.snapped_levels: int = self._config["snapped_levels"]
        self.dim = len(self._arrays["mean"])
        self._tensor_bytes = dump_tensors(self._arrays)
        self._config_bytes = _json_bytes(self._config)
        self.id: str = hashlib.sha256(self._config_bytes + self._tensor_bytes).hexdigest()[:16]
        self.manifest: dict[str, Any] = {**(manifest or {}), "id": self.id, "format": FORMAT}

    def __getstate__(self) -> dict[str, Any]:
        """Small when sent to a worker: what inference derives is derived again there."""
        return {**self.__dict__, "_engines": {}}

    def __repr__(self) -> str:
        return f"Codebook({self.id}: {self.dim} -> {self.levels} x {self.codebook_size})"

    @property
    def arrays(self) -> Arrays:
        """The tensors by name, read-only."""
        return dict(self._arrays)

    @property
    def config(self) -> dict[str, Any]:
        """The settings inference needs, and the distances of products like those trained on."""
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
        engine = self._engine(np.float32)
        scratch = _Scratch(engine, min(n, _ROWS))
        for start in range(0, n, _ROWS):
            rows = slice(start, min(start + _ROWS, n))
            z = engine.latent(vectors[rows], scratch)
            if not np.isfinite(z).all():
                row = int(np.argmin(np.isfinite(z).all(axis=1)))
                finite = np.isfinite(np.asarray(vectors[start + row], np.float32)).all()
                fault = "holds values too large for float32" if finite else "holds NaN or Inf"
                raise CodebookError(f"Row {start + row} {fault}; embed that product again before encoding.")
            out.codes[rows], out.distance[rows], out.margin[rows] = engine.quantise(z, scratch, tie=0.0)
        # All at once: double precision by single rows would read the whole codebook for each.
        near = np.flatnonzero(out.margin <= self._config["margin_bound"])
        if len(near):
            double = self._engine(np.float64)
            scratch = _Scratch(double, min(len(near), _ROWS))
            for start in range(0, len(near), _ROWS):
                part = near[start : start + _ROWS]
                # What stands in float32 is what was given: the codes are those of the vector at that precision.
                z = double.latent(np.asarray(vectors[part], np.float32), scratch)
                out.codes[part], out.distance[part], out.margin[part] = double.quantise(z, scratch, tie=_TIE)
        return out

    def latent(self, x: ArrayLike, dtype: type[np.floating[Any]] = np.float32) -> NDArray[Any]:
        """Latent vectors (N, D) of x (N, d), before quantisation, worked out in float32 or float64."""
        vectors = np.asarray(x)
        engine = self._engine(dtype)
        z = np.empty((len(vectors), self.latent_dim), dtype)
        scratch = _Scratch(engine, min(len(vectors), _ROWS))
        for start in range(0, len(vectors), _ROWS):
            z[start : start + _ROWS] = engine.latent(vectors[start : start + _ROWS], scratch)
        return z

    def decode(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Vectors (N, d) float32 of codes (N, levels): the reconstruction of the products that carry them."""
        index = self._checked(codes)
        if index.shape[1] != self.levels:
            raise CodebookError(f"decode takes all {self.levels} codes of a product; got {index.shape[1]}.")
        a = self._arrays
        q = self.quantised(index)
        x: NDArray[Any] = q @ a["decoder.linear"] + a["mean"]
        depth = sum(name.startswith("decoder.weight.") for name in a)
        if depth:
            x += _mlp(q, [(a[f"decoder.weight.{i}"], a[f"decoder.bias.{i}"]) for i in range(depth)])
        if self.snapped_levels:
            prototype, known = self._prototype(index)
            x[known] += a["prototype.readout"][prototype[known]]
        for level in range(self.snapped_levels, self.levels):
            x += a["readout"][level - self.snapped_levels][index[:, level]]
        return x

    def quantised(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Latent vectors (N, D) that codes (N, 1..levels) stand for; fewer levels give the prefix.

        The mean of the cell where the codes name one, else the sum of the codewords of the snapped levels; deeper
        codewords are added.
        """
        index = self._checked(codes)
        words = self._arrays["codewords"]
        snapped = min(self.snapped_levels, index.shape[1])
        q = np.zeros((len(index), self.latent_dim), np.float32)
        for level in range(snapped):
            q += words[level][index[:, level]]
        if snapped and snapped == self.snapped_levels:
            cell, known = self._cell(index)
            q[known] = self._arrays["cell.means"][cell[known]]
        for level in range(snapped, index.shape[1]):
            q += words[level][index[:, level]]
        return q

    def _prototype(self, codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Prototype of each row's path, and whether there is one."""
        paths = self._arrays["prototype.paths"].astype(np.int64)
        return _find(_key(codes[:, : paths.shape[1]], self.codebook_size), _key(paths, self.codebook_size))

    def _cell(self, codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Cell of each row's snapped codes, and whether there is one."""
        if self.snapped_levels < 3:
            return self._prototype(codes)
        a = self._arrays
        owner = np.repeat(np.arange(len(a["cell.start"]) - 1), np.diff(a["cell.start"]))
        names = np.concatenate([a["prototype.paths"][owner], a["cell.codes"][:, None]], axis=1).astype(np.int64)
        return _find(_key(codes[:, :3], self.codebook_size), _key(names, self.codebook_size))

    def _checked(self, codes: ArrayLike) -> NDArray[np.int64]:
        index = np.asarray(codes)
        if index.ndim != 2 or not 1 <= index.shape[1] <= self.levels or not np.issubdtype(index.dtype, np.integer):
            raise CodebookError(f"Codes are integers of shape (N, {self.levels}); got {index.dtype} {index.shape}.")
        if index.size and not (index.min() >= 0 and index.max() < self.codebook_size):
            raise CodebookError(f"Codes lie in 0..{self.codebook_size - 1}; got {index.min()}..{index.max()}.")
        return index.astype(np.int64)

    def _engine(self, dtype: type[np.floating[Any]]) -> _Engine:
        if dtype not in self._engines:
            self._engines[dtype] = _Engine(self._arrays, self.snapped_levels, dtype)
        return self._engines[dtype]

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


class _Engine:
    """The formulas of inference in one precision, their constant factors multiplied out once.

    What is to be added to a product is one more row of its matrix, which meets a column of ones in the scratch: a
    bias or a norm costs no pass of its own.
    """

    def __init__(self, arrays: Arrays, snapped: int, dtype: type[np.floating[Any]]) -> None:
        a = {name: v if name in INTEGERS else v.astype(dtype, copy=False) for name, v in arrays.items()}
        self.mean, self.snapped = a["mean"], snapped
        depth = sum(name.startswith("encoder.weight.") for name in a)
        layers = [(a[f"encoder.weight.{i}"], a[f"encoder.bias.{i}"]) for i in range(depth)]
        self.latent_dim, self.dtype = a["encoder.linear"].shape[1], dtype
        # The linear path and the MLP's first layer read x in one product.
        biased = [np.vstack([weight, bias]) for weight, bias in layers]
        linear = np.vstack([a["encoder.linear"], np.zeros(self.latent_dim, dtype)])
        self.front, self.deeper = np.hstack([linear, *biased[:1]]), biased[1:]
        words = a["codewords"]
        self.levels, self.codewords = len(words), words
        norms = [np.einsum("kd,kd->k", w, w) for w in words]
        self.word_scores = [np.vstack([-2 * w.T, norm]) for w, norm in zip(words, norms, strict=True)]
        self.word_size = [norm.max() + _TINY for norm in norms]
        if snapped:
            self.keys = np.vstack([-a["prototype.keys"], -a["prototype.offset"]])
            self.key_size = np.sqrt(np.einsum("dk,dk->k", self.keys[:-1], self.keys[:-1]).max())
            self.offset_size = np.abs(self.keys[-1]).max() + _TINY
            self.paths, self.start, self.means = a["prototype.paths"], a["cell.start"], a["cell.means"]
            self.cells = np.diff(self.start)
            self.cell_codes = a.get("cell.codes")

    def latent(self, x: NDArray[Any], scratch: _Scratch) -> NDArray[Any]:
        """Latents (n, D) of x (n, d), in the scratch's `z`."""
        n, z = len(x), scratch.z[: len(x), : self.latent_dim]
        np.subtract(x, self.mean, out=scratch.x[:n, :-1], dtype=self.dtype, casting="same_kind")
        both = scratch.front[:n]
        np.matmul(scratch.x[:n], self.front, out=both[:, :-1])
        h, linear = both[:, self.latent_dim :], both[:, : self.latent_dim]
        if h.shape[1] == 1:
            z[:] = linear
            return z
        for weight, out in zip(self.deeper, scratch.hidden, strict=True):
            np.maximum(h, 0, out=h)  # the ones stay
            np.matmul(h, weight, out=out[:n, :-1])
            h = out[:n]
        return np.add(linear, h[:, :-1], out=z)

    def quantise(
        self, z: NDArray[Any], scratch: _Scratch, tie: float
    ) -> tuple[NDArray[np.int32], NDArray[Any], NDArray[Any]]:
        """Codes (n, levels), distance (n,) and margin (n,) of latents that `latent` left in the scratch; leads below
        `tie` count as ties."""
        n = len(z)
        codes = np.empty((n, self.levels), np.int32)
        margin = np.full(n, np.inf, self.dtype)
        rest = scratch.rest[:n, : self.latent_dim]
        size = np.einsum("nd,nd->n", z, z)
        if self.snapped:
            prototype = self._prototype(scratch, size, margin, tie)
            cell = self._cell(z, scratch, prototype, size, margin, tie)
            codes[:, : self.paths.shape[1]] = self.paths[prototype]
            if self.cell_codes is not None:
                codes[:, 2] = self.cell_codes[cell]
            np.subtract(z, scratch.picked(self.means, cell), out=rest)
            size = np.einsum("nd,nd->n", rest, rest)
        else:
            rest[:] = z
        for level in range(self.snapped, self.levels):
            scores = np.matmul(
                scratch.rest[:n], self.word_scores[level], out=scratch.scores(n, self.codewords.shape[1])
            )
            code = _lowest(scores, size + self.word_size[level], margin, tie)
            codes[:, level] = code
            rest -= scratch.picked(self.codewords[level], code)
            size = np.einsum("nd,nd->n", rest, rest)
        return codes, size, margin

    def _prototype(self, scratch: _Scratch, size: NDArray[Any], margin: NDArray[Any], tie: float) -> NDArray[np.int64]:
        n = len(size)
        scores = np.matmul(scratch.z[:n], self.keys, out=scratch.scores(n, self.keys.shape[1]))
        return _lowest(scores, np.sqrt(size) * self.key_size + self.offset_size, margin, tie)

    def _cell(
        self,
        z: NDArray[Any],
        scratch: _Scratch,
        prototype: NDArray[np.int64],
        size: NDArray[Any],
        margin: NDArray[Any],
        tie: float,
    ) -> NDArray[np.int64]:
        """Index of the nearest mean among the cells of each row's prototype."""
        first, count = self.start[prototype], self.cells[prototype]
        fewest, most = int(count.min()), int(count.max())
        if most == 1:
            return first
        scores = np.full((len(z), most), np.inf, self.dtype)
        for j in range(most):
            rows = slice(None) if j < fewest else np.flatnonzero(count > j)
            gap = scratch.picked(self.means, first[rows] + j)
            gap -= z[rows]
            scores[rows, j] = np.einsum("nd,nd->n", gap, gap)
        return first + _lowest(scores, scores.min(axis=1) + size + _TINY, margin, tie)


class _Scratch:
    """Buffers for up to `rows` rows, made once a call: a product into fresh memory costs twice as much."""

    def __init__(self, engine: _Engine, rows: int) -> None:
        def beside_ones(width: int) -> NDArray[Any]:
            buffer = np.empty((rows, width + 1), engine.dtype)
            buffer[:, -1] = 1
            return buffer

        self.x, self.front = beside_ones(len(engine.mean)), beside_ones(engine.front.shape[1])
        self.hidden = [beside_ones(weight.shape[1]) for weight in engine.deeper]
        self.z, self.rest = beside_ones(engine.latent_dim), beside_ones(engine.latent_dim)
        self._picked = np.empty((rows, engine.latent_dim), engine.dtype)
        widest = max([engine.codewords.shape[1], *([engine.keys.shape[1]] if engine.snapped else [])])
        self._scores = np.empty(rows * widest, engine.dtype)

    def scores(self, rows: int, width: int) -> NDArray[Any]:
        """A buffer (rows, width) without gaps."""
        return self._scores[: rows * width].reshape(rows, width)

    def picked(self, table: NDArray[Any], index: NDArray[Any]) -> NDArray[Any]:
        """Rows of a table (M, D), in a buffer that the next call overwrites."""
        # In `raise` mode numpy copies once more, lest the buffer be half written.
        return np.take(table, index, axis=0, out=self._picked[: len(index)], mode="clip")


def _lowest(scores: NDArray[Any], scale: NDArray[Any], margin: NDArray[Any], tie: float) -> NDArray[np.int64]:
    """Index (n,) of the lowest score of each row; overwrites the scores and lowers `margin` to its relative lead."""
    every = np.arange(len(scores))
    index = scores.argmin(axis=1)
    best = scores[every, index]
    if tie:
        index = (scores <= (best + tie * scale)[:, None]).argmax(axis=1)
    scores[every, index] = np.inf
    lead = scores.min(axis=1)
    lead -= best
    lead /= scale
    np.minimum(margin, lead, out=margin)
    return index


def _key(codes: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """One integer per row of codes (N, up to 3)."""
    key = codes[:, 0]
    for level in range(1, codes.shape[1]):
        key = key * size + codes[:, level]
    return key


def _find(wanted: NDArray[np.int64], keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Index in `keys` of each wanted key, and whether it is there."""
    order = np.argsort(keys, kind="stable")
    at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    return at, keys[at] == wanted


def _mlp(h: NDArray[Any], layers: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> NDArray[Any]:
    for i, (weight, bias) in enumerate(layers):
        h = h @ weight
        h += bias
        if i < len(layers) - 1:
            np.maximum(h, 0, out=h)
    return h


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
