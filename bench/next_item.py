"""Next-item retrieval by a small generative retriever over SIDs, on amazon_office.

    python bench/next_item.py [--seeds 1,2,3] [--epochs 10] [--only ours ...] [--set FIELD=VALUE ...]

A decoder-only transformer reads the tokens of a user's last items and writes the next item's, level by level, in a
beam that follows only SIDs that exist (constrained decoding). It is trained on the `valid` split and judged on `test`;
a tenth of the training users choose the epoch. Tokenizers, all with the same model, optimiser, epochs and beam:

    ours        the project's codebook on the esci flavour's vectors, 4 levels of 256
    ours-3      the same with 3 levels of 256 and the collision policy `capacity=1`: as many tokens as the published
    published   the SIDs that another tokenizer's authors published for these items, 3 levels
    k-means     residual k-means on the same vectors as ours, 4 levels of 256
    atomic      one token an item

Items that share a SID are listed by how often they were bought in the training split. recall@10 counts a hit when the
next item is among the first ten items of the list, so a shared SID costs places.
"""

from __future__ import annotations

import argparse
import ast
import re
import time
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from catalogues import codebook, products
from numpy.typing import NDArray
from rqvae_common import numbers, report, setting, shared, table
from torch import nn

from sid_pipeline.assignment.assign import last_codewords
from sid_pipeline.assignment.collisions import fill_prefix
from sid_pipeline.evaluation.baselines import fit_residual_kmeans
from sid_pipeline.rqvae import Codebook

TOKENIZERS = ("ours", "ours-3", "published", "k-means", "atomic")
HISTORY, BEAM, SIZE = 10, 20, 256
WIDTH, HEADS, LAYERS, DROPOUT = 96, 4, 2, 0.2
BATCH, RATE = 128, 1e-3

Cache = list[tuple[torch.Tensor, torch.Tensor]]


class Block(nn.Module):
    """Pre-norm attention and MLP; the cache holds keys and values of the tokens before."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.drop = nn.Dropout(DROPOUT)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, past: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        b, t, _ = x.shape
        parts = self.qkv(self.before_attention(x)).view(b, t, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)  # each (B, heads, T, width of a head)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.drop(self.out(mixed.transpose(1, 2).reshape(b, t, WIDTH)))
        return x + self.drop(self.mlp(self.before_mlp(x))), (k, v)


class Retriever(nn.Module):
    """Token 0 is padding (to the left); tokens of level l stand in [1 + l K, 1 + (l + 1) K)."""

    def __init__(self, vocabulary: int, length: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, WIDTH), nn.Embedding(length, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.drop = nn.LayerNorm(WIDTH), nn.Dropout(DROPOUT)
        for embedding in (self.token, self.place):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(
        self, tokens: torch.Tensor, padding: torch.Tensor, past: Cache | None = None
    ) -> tuple[torch.Tensor, Cache]:
        """Logits (B, T, V) of what follows tokens (B, T), which come after `past`; padding (B, past + T) is bool."""
        before = past[0][0].shape[2] if past else 0
        t = tokens.shape[1]
        order = torch.arange(before + t)
        causal = order[None, :] <= order[before:, None]  # (T, past + T)
        seen = causal[None] & ~padding[:, None, :]
        seen = (seen | (order[None, :] == order[before:, None])[None])[:, None]  # padding sees itself: no NaN
        x = self.drop(self.token(tokens) + self.place(order[before:]))
        made = []
        for number, block in enumerate(self.blocks):
            x, kept = block(x, seen, past[number] if past else None)
            made.append(kept)
        return self.norm(x) @ self.token.weight.T, made


class Tokenizer:
    """Items as rows of level tokens, and the trie of the SIDs that exist. codes: (items, levels) int."""

    def __init__(self, codes: NDArray[Any], popularity: Counter[int]) -> None:
        sizes = codes.max(0).astype(np.int64) + 1
        starts = 1 + np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.tokens = torch.tensor(codes + starts, dtype=torch.long)
        self.levels, self.vocabulary = codes.shape[1], int(1 + sizes.sum())
        self.following: dict[tuple[int, ...], list[int]] = defaultdict(list)
        self.items: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for item in sorted(range(len(codes)), key=lambda item: (-popularity[item], item)):
            sid = tuple(self.tokens[item].tolist())
            self.items[sid].append(item)
        for sid in self.items:
            for level in range(self.levels):
                if sid[level] not in self.following[sid[:level]]:
                    self.following[sid[:level]].append(sid[level])

    def encode(self, histories: list[list[int]]) -> torch.Tensor:
        """(B, HISTORY x levels) tokens, padded to the left."""
        out = torch.zeros(len(histories), HISTORY * self.levels, dtype=torch.long)
        for row, history in enumerate(histories):
            tail = self.tokens[history[-HISTORY:]].flatten()
            if len(tail):
                out[row, -len(tail) :] = tail
        return out


@torch.no_grad()
def retrieve(model: Retriever, tokenizer: Tokenizer, histories: list[list[int]]) -> list[list[int]]:
    """The first items of each user's beam, at least ten where the SIDs hold as many."""
    model.eval()
    found = []
    for start in range(0, len(histories), 64):
        tokens = tokenizer.encode(histories[start : start + 64])
        b = len(tokens)
        padding = tokens == 0
        logits, past = model(tokens, padding)
        beams: list[list[tuple[float, tuple[int, ...]]]] = [[(0.0, ())] for _ in range(b)]
        step = logits[:, -1].log_softmax(-1)[:, None]  # (B, beams, V)
        for level in range(tokenizer.levels):
            grown, source = [], []
            for row in range(b):
                options: list[tuple[float, tuple[int, ...], int]] = []
                for number, (score, sid) in enumerate(beams[row]):
                    allowed = tokenizer.following[sid]
                    gained = step[row, number, allowed].tolist()
                    options += [(score + g, (*sid, a), number) for a, g in zip(allowed, gained, strict=True)]
                best = sorted(options, key=lambda option: -option[0])[:BEAM]
                # A short beam is filled with copies, so that all rows have one shape; copies score nothing.
                best += [(-1e9, best[-1][1], best[-1][2])] * (BEAM - len(best))
                grown.append([(score, sid) for score, sid, _ in best])
                source.append([number for _, _, number in best])
            beams = grown
            if level + 1 == tokenizer.levels:
                break
            width = step.shape[1]
            rows = (torch.arange(b)[:, None] * width + torch.tensor(source)).flatten()
            past = [(k[rows], v[rows]) for k, v in past]
            last = torch.tensor([[sid[-1] for _, sid in beam] for beam in beams]).view(-1, 1)
            padding = torch.cat([padding[rows], torch.zeros(len(rows), 1, dtype=torch.bool)], 1)
            logits, past = model(last, padding, past)
            step = logits[:, -1].log_softmax(-1).view(b, BEAM, -1)
        for beam in beams:
            items: list[int] = []
            for score, sid in beam:
                if score > -1e8 and len(items) < 10:
                    items += tokenizer.items[sid]
            found.append(items[:10])
    return found


def fit(
    tokenizer: Tokenizer, train: list[tuple[list[int], int]], held: list[tuple[list[int], int]], seed: int, epochs: int
) -> Retriever:
    """Train and return the epoch that finds most of `held`."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Retriever(tokenizer.vocabulary, (HISTORY + 1) * tokenizer.levels)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    steps = epochs * -(-len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.05)
    best, kept = -1.0, None
    for epoch in range(epochs):
        model.train()
        order = rng.permutation(len(train))
        for start in range(0, len(order), BATCH):
            rows = [train[row] for row in order[start : start + BATCH]]
            tokens = torch.cat([tokenizer.encode([h for h, _ in rows]), tokenizer.tokens[[i for _, i in rows]]], 1)
            logits, _ = model(tokens[:, :-1], tokens[:, :-1] == 0)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=0)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        if epoch % 2 or epoch + 1 == epochs:
            recall = recall_at(retrieve(model, tokenizer, [h for h, _ in held]), [i for _, i in held], 10)
            if recall > best:
                best, kept = recall, {name: value.clone() for name, value in model.state_dict().items()}
    assert kept is not None
    model.load_state_dict(kept)
    return model


def recall_at(found: list[list[int]], wanted: list[int], k: int) -> float:
    """Share of users whose next item is among the first k."""
    return sum(item in items[:k] for items, item in zip(found, wanted, strict=True)) / len(wanted)


def one_each(book: Codebook, x: NDArray[np.float32]) -> NDArray[Any]:
    """Codes (N, levels) under `capacity=1`: the first item of a base SID keeps it, the others are placed by the code of
    the policy. Items come in the order of their rows."""
    codes = book.encode(x)
    nearest = last_codewords(book, x).astype("<i2")
    _, first = np.unique(codes, axis=0, return_index=True)
    home = np.zeros(len(codes), bool)
    home[first] = True
    prefixes, group = np.unique(codes[:, :-1], axis=0, return_inverse=True)
    for number in range(len(prefixes)):
        here = np.flatnonzero(group == number)
        at_home, waiting = here[home[here]], here[~home[here]]
        rows = pa.table(
            {
                "prefix": ["prefix"] * len(waiting),
                "product_id": [str(row) for row in waiting],
                "turn": waiting,
                "candidates": [nearest[row].tobytes() for row in waiting],
            }
        )
        occupied = pa.table({"code": codes[at_home, -1], "held": np.ones(len(at_home), int)})
        for row in fill_prefix(1)(rows, occupied).to_pylist():
            codes[int(row["product_id"]), -1] = int(row["placed"].rsplit("_", 1)[1])
    return codes


def sequences() -> dict[str, list[tuple[str, list[int], int]]]:
    """By split: user, history (item rows), next item."""
    read = pq.read_table(shared() / "data" / "amazon_office" / "sequences.parquet").to_pylist()
    out: dict[str, list[tuple[str, list[int], int]]] = defaultdict(list)
    for row in read:
        history = [int(item) for item in ast.literal_eval(row["history_item_id"])]
        out[row["split"]].append((row["user_id"], history, int(row["item_id"])))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=TOKENIZERS)
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    catalogue = products("amazon_office")
    assert catalogue.ids == [str(number) for number in range(len(catalogue.ids))], "items are their own row numbers"
    split = sequences()
    before = {user for user, _, _ in split["valid"]}
    popularity = Counter(item for _, _, item in split["valid"])
    seen = {item for _, history, item in split["valid"] for item in [*history, item]}
    report(
        bench="next_item",
        train=len(split["valid"]),
        test=len(split["test"]),
        test_users_seen_in_training=sum(user in before for user, _, _ in split["test"]),
        test_targets_seen_in_training=sum(item in seen for _, _, item in split["test"]),
    )
    published = {
        int(row["item_id"]): [int(n) for n in re.findall(r"\d+", row["sid"])]
        for row in pq.read_table(shared() / "data" / "amazon_office" / "published_sids.parquet").to_pylist()
    }
    x = catalogue.vectors("esci")
    rows = []
    for seed in args.seeds:
        for name in args.only or TOKENIZERS:
            if name == "ours":
                codes = codebook(catalogue, x, "esci", codebook_size=SIZE, seed=seed, **dict(args.set)).encode(x)
            elif name == "ours-3":
                levels = {"levels": 3, "level_weights": (1.0, 0.75, 0.25)}
                book = codebook(catalogue, x, "esci", codebook_size=SIZE, seed=seed, **levels, **dict(args.set))
                codes = one_each(book, x)
            elif name == "k-means":
                codes = fit_residual_kmeans(x, 4, SIZE, seed).assign(x)
            elif name == "published":
                codes = np.array([published[item] for item in range(len(catalogue.ids))])
            else:
                codes = np.arange(len(catalogue.ids))[:, None]
            tokenizer = Tokenizer(codes, popularity)
            users = np.random.default_rng(seed).permutation(len(split["valid"]))
            examples = [(split["valid"][row][1], split["valid"][row][2]) for row in users]
            tenth = len(examples) // 10
            began = time.monotonic()
            model = fit(tokenizer, examples[tenth:], examples[:tenth], seed, args.epochs)
            found = retrieve(model, tokenizer, [history for _, history, _ in split["test"]])
            wanted = [item for _, _, item in split["test"]]
            row = {
                "tokenizer": name,
                "seed": seed,
                "distinct SIDs": len(tokenizer.items),
                "recall@5": recall_at(found, wanted, 5),
                "recall@10": recall_at(found, wanted, 10),
            }
            report(bench="next_item", seconds=time.monotonic() - began, **row)
            rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
