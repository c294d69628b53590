"""Speed of the RQ-VAE, as ratios of one run: beside its peers, and against the bare matrix products of its own shapes.

    uv pip install --no-deps --target /tmp/sid-bench-peers vector-quantize-pytorch semantic-id einops einx \
        frozendict loguru torch-einops-utils
    python bench/rqvae_speed.py train [--peers /tmp/sid-bench-peers] [--device cuda] [--n 30000]
    python bench/rqvae_speed.py encode

`train`: a whole training step (drawing and gathering the batch, forward, losses with the contrastive term, backward,
optimiser), the contestants taking turns. Every peer runs its own module, loss and AdamW in the leanest loop there is
(rows of a tensor picked by a permutation), at its own widths and at ours. `without the term` and `uniform batches` are
our step with one part taken away, of the same number of rows, so that differences tell what the parts cost.
`GEMM limit` replays the matrix products that our step was seen to make, with their shapes and layouts, and nothing
else.
`encode`: `Codebook.encode` against the bare products of its shapes, in numpy.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rqvae_common import report, setting, table, workload
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sid_pipeline.rqvae import Codebook, TrainConfig, train
from sid_pipeline.rqvae.trainer import _Run

Step = Callable[[], Any]


# ------------------------------------------------------------------------------------------------------ our step
def our_step(x: NDArray[np.float32], paths: NDArray[np.int64], config: TrainConfig) -> Step:
    """One training step after another, from an initialised run."""
    run = _Run(x, paths, config, None, None)
    run.start()

    def step() -> None:
        run._set_rate()
        run._step()
        run.state.step += 1
        run.pending.clear()

    return step


class _Products(TorchDispatchMode):
    """Notes every matrix product that is made: the operands' shapes, strides and type."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm", "bmm"):
            self.seen.append(args[-2:])
        return func(*args, **(kwargs or {}))


def gemm_limit(step: Step, steps: int) -> tuple[Step, float]:
    """The products of some steps, to be made again into buffers of their own, a step's at each call; and how many flop
    a step is in the mean."""
    replays, flop = [], 0.0
    for _ in range(steps):
        with _Products() as products:
            step()
        operands = []
        for a, b in products.seen:
            fresh = [torch.empty_strided(m.shape, m.stride(), dtype=m.dtype, device=m.device).normal_() for m in (a, b)]
            operands.append((*fresh, torch.matmul(*fresh)))
        flop += sum(2.0 * out.numel() * a.shape[-1] for a, _, out in operands)
        replays.append(operands)
    turn = itertools.cycle(replays)

    def replay() -> None:
        for a, b, out in next(turn):
            torch.matmul(a, b, out=out)

    return replay, flop / steps


# --------------------------------------------------------------------------------------------------------- peers
def semantic_id(x: Tensor, batch: int, hidden: list[int], latent: int) -> Step:
    """The step of `semantic_id.RQVAE.fit`, without its DataLoader."""
    rqvae = importlib.import_module("semantic_id.algorithms.rq_vae").RQVAE
    peer = rqvae(x.shape[1], [512] * 4, latent, hidden, batch_size=batch, kmeans_init=True, kmeans_iters=10)
    module = peer.module.to(x.device).train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3)

    def loss(rows: Tensor) -> Tensor:
        out, quantisation, _ = module(rows)
        total: Tensor = module.compute_loss(out, quantisation, rows)[0]
        return total

    return _peer_step(x, batch, optimiser, loss)


def vector_quantize(x: Tensor, batch: int, hidden: list[int], latent: int) -> Step:
    """`vector_quantize_pytorch.ResidualVQ` (k-means start, EMA codebooks) between two plain MLPs."""
    residual_vq = importlib.import_module("vector_quantize_pytorch").ResidualVQ
    widths = [x.shape[1], *hidden, latent]
    encoder, decoder = _mlp(widths).to(x.device), _mlp(widths[::-1]).to(x.device)
    quantiser = residual_vq(dim=latent, num_quantizers=4, codebook_size=512, kmeans_init=True).to(x.device)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

    def loss(rows: Tensor) -> Tensor:
        quantised, _, commitment = quantiser(encoder(rows)[None])
        error: Tensor = (decoder(quantised[0]) - rows).square().sum(1).mean() + commitment.sum()
        return error

    return _peer_step(x, batch, optimiser, loss)


def _mlp(widths: list[int]) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def _peer_step(x: Tensor, batch: int, optimiser: torch.optim.Optimizer, loss: Callable[[Tensor], Tensor]) -> Step:
    order = torch.randperm(len(x), device=x.device)
    at = 0

    def step() -> None:
        nonlocal at
        rows = x[order[at : at + batch]]
        at = at + batch if at + 2 * batch <= len(x) else 0
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda"):
            total = loss(rows)
        total.backward()
        optimiser.step()

    return step


PEERS: dict[str, Callable[[Tensor, int, list[int], int], Step]] = {
    "semantic-id": semantic_id,
    "vector-quantize-pytorch": vector_quantize,
}
# Widths of semantic-id's default; vector-quantize-pytorch is a quantiser without an encoder.
PEER_WIDTHS = ([512, 256, 128], 64)


# ---------------------------------------------------------------------------------------------------- stopwatch
def take_turns(steps: dict[str, Step], rounds: int, per_turn: int, threads: int, device: str) -> dict[str, list[float]]:
    """Seconds of a step, one figure per contestant and round; a first round of each is not counted.

    One thread of a CPU is timed by the processor time it took, which other work on the machine distorts less.
    """
    on_gpu = device.startswith("cuda")
    clock = time.process_time if threads == 1 and not on_gpu else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            began = clock()
            for _ in range(per_turn):
                step()
            if on_gpu:
                torch.cuda.synchronize()
            if turn:
                seconds[name].append((clock() - began) / per_turn)
    return seconds


def measure_training(args: argparse.Namespace) -> None:
    """Bar 2 (and, with --device cuda, bar 3)."""
    data = workload().make_workload(n=args.n)
    paths = np.stack([data.dept, data.aisle, data.leaf], axis=1)
    # Initialisation is not timed here: the fewest k-means iterations do.
    base = {"seed": 1, "threads": args.threads, "device": args.device, "kmeans_iterations": 1, **args.set}
    torch.set_num_threads(args.threads)
    config = TrainConfig(**base)
    ours = our_step(data.x, paths, config)
    steps: dict[str, Step] = {
        "ours": ours,
        "without the term": our_step(data.x, paths, TrainConfig(**{**base, "lambda_contrastive": 0.0})),
        "uniform batches": our_step(
            data.x, paths, TrainConfig(**{**base, "lambda_contrastive": 0.0, "hierarchical_fraction": 0.0})
        ),
    }
    steps["GEMM limit"], flop = gemm_limit(ours, config.contrastive_every)
    # Whole rounds of the term, which comes every so many steps.
    args.per_turn = -(-args.per_turn // config.contrastive_every) * config.contrastive_every
    if args.peers:
        sys.path.append(str(args.peers))
        x = torch.from_numpy(data.x).to(args.device)
        our_widths = (list(config.hidden), config.latent_dim or 96)
        for name, make in PEERS.items():
            steps[name] = make(x, config.batch_size, *PEER_WIDTHS)
            steps[f"{name}, our widths"] = make(x, config.batch_size, *our_widths)
    seconds = take_turns(steps, args.rounds, args.per_turn, args.threads, args.device)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    rows = []
    for name in steps:
        spread = sorted(seconds[name])
        rows.append(
            {
                "step": name,
                "ms, median": round(1e3 * middle[name], 1),
                "ms, least to most": f"{1e3 * spread[0]:.1f} to {1e3 * spread[-1]:.1f}",
                "items/s": f"{config.batch_size / middle[name]:,.0f}",
                "ours is times as fast": middle[name] / middle["ours"],
            }
        )
    report(
        bench="train",
        torch=torch.__version__,
        device=args.device,
        threads=args.threads,
        n=args.n,
        batch=config.batch_size,
        gflop_a_step=flop / 1e9,
        gflop_per_s_at_the_limit=flop / 1e9 / middle["GEMM limit"],
        share_of_gemm_limit=middle["GEMM limit"] / middle["ours"],
        sampler_and_term_share=1 - middle["uniform batches"] / middle["ours"],
        term_share=1 - middle["without the term"] / middle["ours"],
        seconds=seconds,
    )
    print(table(rows))


# ------------------------------------------------------------------------------------------------------ encoding
def bare_products(book: Codebook, rows: int) -> tuple[Step, float]:
    """The matrix products that encoding `rows` vectors needs, on buffers of their own; and their flop."""
    a = book.arrays
    deep = book.levels - book.snapped_levels
    shapes = [a["encoder.linear"].shape]
    shapes += [w.shape for name, w in a.items() if name.startswith("encoder.weight.")]
    shapes += [a["prototype.keys"].shape] if deep < book.levels else []
    shapes += [(book.latent_dim, book.codebook_size)] * deep
    rng = np.random.default_rng(0)
    widths = {n for n, _ in shapes}
    left = {n: rng.standard_normal((rows, n), dtype=np.float32) for n in widths}
    operands = [
        (left[n], rng.standard_normal((n, m), dtype=np.float32), np.empty((rows, m), np.float32)) for n, m in shapes
    ]

    def replay() -> None:
        for x, w, out in operands:
            np.matmul(x, w, out=out)

    return replay, sum(2.0 * rows * n * m for n, m in shapes)


def measure_encoding(args: argparse.Namespace) -> None:
    """Items/s of one process against its bare products, in blocks of a few sizes (the best of them is the limit)."""
    data = workload().make_workload(n=args.n)
    paths = np.stack([data.dept, data.aisle, data.leaf], axis=1)
    book = train(data.x, paths, TrainConfig(**{"seed": 1, "threads": args.threads, "steps": 0, **args.set}))
    x = data.x[: args.rows]
    steps: dict[str, Step] = {"encode": lambda: book.encode(x)}
    flop = 0.0
    for block in (512, 2048, len(x)):
        replay, flop = bare_products(book, block)
        times = len(x) // block
        steps[f"bare products, blocks of {block}"] = lambda replay=replay, times=times: [replay() for _ in range(times)]
    seconds = take_turns(steps, args.rounds, 1, args.threads, "cpu")
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    limit = min(value for name, value in middle.items() if name != "encode")
    rows = [
        {"": name, "items/s": f"{len(x) / value:,.0f}", "encode is times as fast": value / middle["encode"]}
        for name, value in middle.items()
    ]
    report(
        bench="encode",
        rows=len(x),
        dim=book.dim,
        latent=book.latent_dim,
        prototypes=book.arrays["prototype.keys"].shape[1],
        snapped_levels=book.snapped_levels,
        gflop_per_s_at_the_limit=flop / 1e9 / limit,
        share_of_gemm_limit=limit / middle["encode"],
        seconds=seconds,
    )
    print(table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=["train", "encode"])
    parser.add_argument("--peers", type=Path, help="folder that the peers were installed into")
    parser.add_argument("--n", type=int, default=30_000)
    parser.add_argument("--rows", type=int, default=16_384, help="vectors to encode")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--per-turn", type=int, default=4, help="steps per turn")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args()
    args.set = dict(args.set)
    with threadpool_limits(args.threads):
        {"train": measure_training, "encode": measure_encoding}[args.bench](args)


if __name__ == "__main__":
    main()
