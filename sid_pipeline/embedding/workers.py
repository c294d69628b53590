"""Encoding a stream of texts by one model in this process, or by one in each of several.

What belongs here: how many processes, on which devices, and feeding them in bounded memory. What does not: the model
(`model.py`), and where texts come from and vectors go (`run.py`).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING

from sid_pipeline.embedding.model import Embedder, Encoded, ModelError
from sid_pipeline.settings import EmbedderSettings

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

Encode = Callable[[Iterable[list[str]]], Iterator[Encoded]]

# A process takes seconds to start and loads the weights once more: fewer texts do not repay it.
PARALLEL_FROM = 20_000
MAX_CPU_WORKERS = 8
# Chunks in a worker's hands or waiting for it; more would only hold memory.
CHUNKS_A_WORKER = 2


def devices(settings: EmbedderSettings, workers: int | None, texts: int) -> list[str]:
    """The device of each process to encode with; one of them means: in this process.

    Every GPU gets a process; so does every CPU core up to 8, for two processes of one thread encode more than one
    of two threads. Few texts are encoded in this process.

    Args:
        settings: its device may name one; 'auto' takes all there are.
        workers: processes at most; None leaves it to the machine.
        texts: how many there are to encode.
    """
    import torch

    if settings.device not in {"auto", "cpu"}:
        found = [settings.device]
    elif settings.device == "auto" and torch.cuda.is_available():
        found = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    elif settings.device == "auto" and torch.backends.mps.is_available():
        found = ["mps"]
    else:
        found = ["cpu"] * (workers or min(MAX_CPU_WORKERS, os.cpu_count() or 1))
    found = found[: workers or len(found)]
    return found if texts >= PARALLEL_FROM else found[:1]


@contextmanager
def encoders(settings: EmbedderSettings, root: Path, devices: Sequence[str]) -> Iterator[Encode]:
    """Load the model on every device, and give the function that encodes chunk after chunk, in the chunks' order.

    Chunks are read a few ahead only.

    Args:
        settings, root: of the embedder, see `Embedder.load`.
        devices: one process each, see `devices`; a single one is used in this process.

    Raises:
        ModelError: the model cannot be loaded, or a process died (mostly for want of memory).
    """
    if len(devices) == 1:
        embedder = Embedder.load(settings, root, devices[0])
        yield lambda chunks: map(embedder.encode_counted, chunks)
        return
    # Spawned: a fork would copy torch's and Spark's threads in the middle of what they do.
    context = get_context("spawn")
    queue = context.Queue()
    for device in devices:
        queue.put(device)
    threads = max(1, (os.cpu_count() or 1) // len(devices))
    pool = ProcessPoolExecutor(len(devices), context, _start, (settings, root, queue, threads))
    ahead = CHUNKS_A_WORKER * len(devices)
    try:
        yield lambda chunks: _mapped(pool, chunks, ahead)
    except BrokenProcessPool as error:
        raise ModelError(
            "a process that encodes died, mostly for want of memory (the lines above may say more): set "
            "embedding.workers to a smaller number. What was committed is kept; the next run encodes the rest"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _mapped(pool: ProcessPoolExecutor, chunks: Iterable[list[str]], ahead: int) -> Iterator[Encoded]:
    """Like `pool.map`, which would take all chunks at once."""
    waiting: deque[Future[Encoded]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(_encode, chunk))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_embedder: Embedder | None = None


def _start(settings: EmbedderSettings, root: Path, devices: Queue[str], threads: int) -> None:
    """Load the model in a new process, and end with the parent: a killed one leaves nobody behind."""
    global _embedder
    threading.Thread(target=_follow_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    _embedder = Embedder.load(settings, root, devices.get())


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode(texts: list[str]) -> Encoded:
    assert _embedder is not None
    return _embedder.encode_counted(texts)
