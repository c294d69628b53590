"""Measures the LLM cleaner against a local server in a process of its own: rows/s, requests in flight, memory.

    python bench/cleaning_llm.py [--provider gemini|openai] [--rows 50000] [--in-flight 64] [--per-prompt 1]

The real client talks HTTP to the server of the tests, which answers at once: what is measured is the client, the
policy, the truth rule and the spool, not a model. Every answer is spooled and committed (to a list's length) each
ten seconds. Resident memory is read from /proc after every tenth of the rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sid_pipeline.cleaning.llm.calls import Policy  # noqa: E402
from sid_pipeline.cleaning.llm.cleaner import LlmCleaner, LlmOptions, text_hash  # noqa: E402
from sid_pipeline.cleaning.llm.costs import Price  # noqa: E402
from sid_pipeline.cleaning.llm.gemini import Gemini  # noqa: E402
from sid_pipeline.cleaning.llm.openai import OpenAI  # noqa: E402
from sid_pipeline.cleaning.llm.prompt import Prompt, Text  # noqa: E402
from sid_pipeline.cleaning.llm.spool import Spool, records  # noqa: E402
from sid_pipeline.cleaning.model import ProductText  # noqa: E402
from sid_pipeline.cleaning.schema import Schema  # noqa: E402
from sid_pipeline_tests.llm_server import KEY  # noqa: E402

PORT = 8791


def resident_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def texts(number: int) -> Iterator[Text]:
    for i in range(number):
        product = ProductText(
            f"Crunchy Oat Biscuits {i}", "Marlowe Farm", "250 g",
            "Baked with wholegrain oats, honey and sea salt. You will love them! Vegetarian. Keep dry.",
        )  # fmt: skip
        yield Text(text_hash(product), product)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", choices=("gemini", "openai"), default="gemini")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--per-prompt", type=int, default=1)
    arguments = parser.parse_args()
    url = f"http://127.0.0.1:{PORT}"
    command = [sys.executable, "-m", "sid_pipeline_tests.llm_server", "--port", str(PORT)]
    server = subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})
    try:
        _wait(url)
        run(arguments, url)
    finally:
        server.terminate()
        server.wait()


def run(arguments: argparse.Namespace, url: str) -> None:
    prompt = Prompt.load("grocery_1", Schema.load("grocery_1", ROOT), ROOT)

    def connect() -> Gemini | OpenAI:
        if arguments.provider == "gemini":
            return Gemini("test", KEY, base_url=url, timeout=60)
        return OpenAI("test", KEY, base_url=f"{url}/v1", timeout=60)

    options = LlmOptions(
        arguments.provider, "test", per_prompt=arguments.per_prompt, policy=Policy(in_flight=arguments.in_flight),
        price=Price(0.1, 0.4),
    )  # fmt: skip
    cleaner = LlmCleaner(prompt, connect, options)
    cleaner.clean([text.product for text in texts(200)])  # imports and connections
    committed = seen = 0
    started, cpu = time.perf_counter(), time.process_time()

    def commit(segment: Path, recovered: bool) -> None:
        nonlocal committed
        committed += sum(len(record["cleaned"]) for record in records(segment))

    def outcome(text: Text, result: object) -> None:
        nonlocal seen
        seen += 1
        if seen % (arguments.rows // 10) == 0:
            rate = seen / (time.perf_counter() - started)
            print(f"{seen:>7,} rows  {rate:6.0f} rows/s  {resident_mib():6.0f} MiB", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), commit, seconds=10)
        report = cleaner.run(texts(arguments.rows), outcome=outcome, spool=spool, run_id="bench")
    seconds, busy = time.perf_counter() - started, time.process_time() - cpu
    assert committed == report.counts.cleaned == arguments.rows, report
    print(
        f"{arguments.provider}: {arguments.rows / seconds:,.0f} rows/s over {arguments.rows:,} rows in "
        f"{report.calls:,} calls, {arguments.in_flight} in flight; "
        f"{arguments.rows / busy:,.0f} rows per CPU second of the client"
    )


def _wait(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{url}/v1beta/batches", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
