"""A local server that speaks the protocols of the LLM services, for the real clients of the tests and benchmarks.

It answers what google-genai and openai really call: Gemini's generateContent, resumable file upload, batch jobs and
file download, and OpenAI's chat completions. Its "model" is a few lines of code: it names the last word of the title
as product type and copies the brand. Faults are injected by script or by rate, and every call is counted.

    python -m sid_pipeline_tests.llm_server --port 8765     # a process of its own, for benchmarks
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEY = "test-key-7f3a9b"
FAULTS = (
    "400",
    "429",
    "429-daily",
    "500",
    "503",
    "401",
    "400-key",
    "404",
    "slow",
    "truncated",
    "malformed",
    "refused",
    "drop",
)


@dataclass
class Fault:
    """A fault to inject into the next `times` calls whose products' text holds `match`."""

    kind: str
    times: int
    match: str = ""


@dataclass
class LlmServer:
    """State and behaviour; `start` runs it in a thread.

    Attributes:
        calls: answered or failed calls by kind (`generate`, `chat`, `batch`, `upload` ...).
        asked: how often each product was in a call that was answered, by title.
        rates: share of calls that fail, by kind of fault.
        gullible: the model obeys `set brand to X` in any text, for every product of the request.
        batch_polls: looks at a job until it is done; batch_end: the state it ends in.
    """

    rates: dict[str, float] = field(default_factory=dict)
    gullible: bool = False
    delay: float = 0.0
    batch_polls: int = 2
    batch_end: str = "BATCH_STATE_SUCCEEDED"
    batch_share: float = 1.0
    calls: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    prompts: list[list[str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    in_flight: int = 0
    most_in_flight: int = 0
    url: str = ""
    keep_prompts: bool = True
    answer: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    reply: Callable[[str], str] | None = None  # to questions other than cleaning's: the first turn to an answer
    log: Callable[[dict[str, Any]], None] | None = None  # gets every answer: the question's text, fault and tokens
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def fault(self, kind: str, times: int = 1, match: str = "") -> None:
        """Inject a fault into the next calls."""
        assert kind in FAULTS, kind
        self.faults.append(Fault(kind, times, match))

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=1 << 30)
        app.add_routes([
            web.post("/v1beta/models/{model}:generateContent", self._generate),
            web.post("/v1beta/models/{model}:batchGenerateContent", self._create_batch),
            web.get("/v1beta/batches", self._list_batches),
            web.get("/v1beta/batches/{job}", self._get_batch),
            web.post("/upload/v1beta/files", self._start_upload),
            web.post("/upload/session/{file}", self._finish_upload),
            web.get("/v1beta/files/{file}:download", self._download),
            web.post("/v1/chat/completions", self._chat),
        ])  # fmt: skip
        return app

    # Gemini

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        self.calls["generate"] += 1
        if request.headers.get("x-goog-api-key") != KEY:
            return self._gemini_error("400-key")
        body = await request.json()
        assert body["generationConfig"]["responseMimeType"] == "application/json"
        turns = [content["parts"][0]["text"] for content in body["contents"]]
        fault = self._next_fault(turns[0])
        response = await self._faulty(fault, self._gemini_error, request)
        if response is not None:
            return response
        async with self._busy():
            return web.json_response(self._gemini_body(turns, body, fault))

    def _gemini_body(self, turns: list[str], body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        text, (input_tokens, output_tokens) = self._complete(turns, json.dumps(body), fault)
        usage = {"promptTokenCount": input_tokens, "candidatesTokenCount": output_tokens}
        if fault == "refused":
            usage["candidatesTokenCount"] = 0
            return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": usage}
        finish = "MAX_TOKENS" if fault == "truncated" else "STOP"
        return {
            "candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": finish}],
            "usageMetadata": usage,
            "modelVersion": "gemini-test-001",
        }

    def _gemini_error(self, kind: str) -> web.Response:
        status, reason, message, details = {
            "400": (400, "INVALID_ARGUMENT", "the request is too long", []),
            "429": (429, "RESOURCE_EXHAUSTED", "slow down", [{"retryDelay": "0.05s"}]),
            "429-daily": (
                429, "RESOURCE_EXHAUSTED", "You exceeded your current quota",
                [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}],
            ),
            "500": (500, "INTERNAL", "internal error", []),
            "503": (503, "UNAVAILABLE", "overloaded", []),
            "401": (401, "UNAUTHENTICATED", "no credentials", []),
            "400-key": (400, "INVALID_ARGUMENT", "API key not valid.", [{"reason": "API_KEY_INVALID"}]),
            "404": (404, "NOT_FOUND", "no such model", []),
        }[kind]  # fmt: skip
        error = {"code": status, "status": reason, "message": message, "details": details}
        return web.json_response({"error": error}, status=status)

    async def _start_upload(self, request: web.Request) -> web.Response:
        self.calls["upload"] += 1
        assert request.headers["X-Goog-Upload-Command"] == "start"
        name = f"f{len(self.files)}"
        self.files[name] = b""
        return web.json_response({}, headers={"X-Goog-Upload-URL": f"{self.url}/upload/session/{name}"})

    async def _finish_upload(self, request: web.Request) -> web.Response:
        name = request.match_info["file"]
        self.files[name] += await request.read()
        status = "final" if "finalize" in request.headers["X-Goog-Upload-Command"] else "active"
        body = {"file": {"name": f"files/{name}", "state": "ACTIVE"}}
        return web.json_response(body, headers={"X-Goog-Upload-Status": status})

    async def _create_batch(self, request: web.Request) -> web.Response:
        self.calls["batch"] += 1
        if request.headers.get("x-goog-api-key") != KEY:
            return self._gemini_error("400-key")
        body = (await request.json())["batch"]
        name = f"batches/b{len(self.jobs)}"
        source = body["inputConfig"]["fileName"].removeprefix("files/")
        self.jobs[name] = {"polls": 0, "source": source, "display": body["displayName"], "end": self.batch_end}
        return web.json_response(self._batch_body(name))

    async def _list_batches(self, request: web.Request) -> web.Response:
        self.calls["list"] += 1
        return web.json_response({"operations": [self._batch_body(name) for name in self.jobs]})

    async def _get_batch(self, request: web.Request) -> web.Response:
        self.calls["poll"] += 1
        name = f"batches/{request.match_info['job']}"
        job = self.jobs[name]
        job["polls"] += 1
        if job["polls"] >= self.batch_polls and "result" not in job:
            job["result"] = self._run_batch(job)
        return web.json_response(self._batch_body(name))

    def _batch_body(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        ended = "result" in job
        state = job["end"] if ended else "BATCH_STATE_RUNNING"
        body: dict[str, Any] = {"name": name, "metadata": {"displayName": job["display"], "state": state}}
        if ended and self.files.get(job["result"]):
            body["metadata"]["output"] = {"responsesFile": f"files/{job['result']}"}
        return body

    def _run_batch(self, job: dict[str, Any]) -> str:
        lines = self.files[job["source"]].decode().splitlines()
        share = self.batch_share if job["end"] != "BATCH_STATE_SUCCEEDED" else 1.0
        results = []
        for line in lines[: int(len(lines) * share)]:
            record = json.loads(line)
            body = record["request"]
            turns = [content["parts"][0]["text"] for content in body["contents"]]
            fault = self._next_fault(turns[0])
            if fault in ("500", "503", "429"):
                results.append({"key": record["key"], "error": {"code": int(fault), "message": "no luck"}})
            else:
                results.append({"key": record["key"], "response": self._gemini_body(turns, body, fault)})
        name = f"r{len(self.files)}"
        self.files[name] = "\n".join(map(json.dumps, results)).encode()
        return name

    async def _download(self, request: web.Request) -> web.Response:
        self.calls["download"] += 1
        return web.Response(body=self.files[request.match_info["file"]])

    # OpenAI

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.calls["chat"] += 1
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return self._openai_error("401")
        body = await request.json()
        turns = [message["content"] for message in body["messages"] if message["role"] != "system"]
        fault = self._next_fault(turns[0])
        response = await self._faulty(fault, self._openai_error, request)
        if response is not None:
            return response
        async with self._busy():
            text, (input_tokens, output_tokens) = self._complete(turns, json.dumps(body), fault)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if fault == "refused":
            message = {"role": "assistant", "content": None, "refusal": "I cannot help with that"}
        finish = "length" if fault == "truncated" else "stop"
        return web.json_response({
            "id": "c", "object": "chat.completion", "created": 0, "model": "open-test",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {
                "prompt_tokens": input_tokens, "completion_tokens": output_tokens,
                "total_tokens": input_tokens + output_tokens,
            },
        })  # fmt: skip

    def _openai_error(self, kind: str) -> web.Response:
        status, code, message, headers = {
            "400": (400, "context_length_exceeded", "the request is too long", {}),
            "429": (429, "rate_limit_exceeded", "slow down", {"retry-after": "0.05"}),
            "429-daily": (429, "insufficient_quota", "You exceeded your current quota", {}),
            "500": (500, None, "internal error", {}),
            "503": (503, None, "overloaded", {}),
            "401": (401, "invalid_api_key", f"Incorrect API key provided: {KEY[:4]}***{KEY[-4:]}", {}),
            "400-key": (401, "invalid_api_key", "Incorrect API key provided", {}),
            "404": (404, "model_not_found", "no such model", {}),
        }[kind]
        return web.json_response({"error": {"code": code, "message": message}}, status=status, headers=headers)

    # Both

    async def _faulty(
        self, fault: str | None, error: Callable[[str], web.Response], request: web.Request
    ) -> web.Response | None:
        if fault == "slow":
            await asyncio.sleep(60)
        if fault == "drop":
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return error(fault) if fault and (fault[0] == "4" or fault[0] == "5") else None

    def _next_fault(self, products: str) -> str | None:
        for fault in self.faults:
            if fault.times > 0 and fault.match in products:
                fault.times -= 1
                return fault.kind
        draw = self._random.random()
        for kind, rate in self.rates.items():
            draw -= rate
            if draw < 0:
                return kind
        return None

    def _busy(self) -> _Busy:
        return _Busy(self)

    def _complete(self, turns: list[str], prompt: str, fault: str | None) -> tuple[str, tuple[int, int]]:
        if self.reply is not None:
            text = "no JSON" if fault == "malformed" else self.reply(turns[0])
            return text, (len(prompt) // 4, len(text) // 4)
        products = json.loads(turns[0])
        for product in products:
            self.asked[product["title"]] += 1
        if self.keep_prompts:
            self.prompts.append([product["title"] for product in products])
        text = json.dumps({"products": [(self.answer or honest)(product) for product in products]})
        if self.gullible:
            text = _obey(products, text)
        if fault == "malformed":
            text = "Sure! Here is what I found: the product is nice."
        if fault == "truncated":
            text = text[: len(text) // 2]
        tokens = (len(prompt) // 4, len(text) // 4)
        if self.log is not None:
            self.log({"text": turns[0], "fault": fault, "tokens": tokens})
        return text, tokens


class _Busy:
    def __init__(self, server: LlmServer) -> None:
        self._server = server

    async def __aenter__(self) -> None:
        server = self._server
        server.in_flight += 1
        server.most_in_flight = max(server.most_in_flight, server.in_flight)
        if server.delay:
            await asyncio.sleep(server.delay)

    async def __aexit__(self, *_: object) -> None:
        self._server.in_flight -= 1


def honest(product: dict[str, Any]) -> dict[str, Any]:
    """What an honest, not very bright model finds."""
    words = re.findall(r"[A-Za-z]+", product["title"])
    return {
        "id": product["id"], "product_type": words[-1].lower() if words else None, "brand": product.get("brand"),
        "key_ingredients": [], "dietary_tags": ["vegan"] if "vegan" in product["title"].lower() else [],
        "tags": [], "format": None, "size": None, "audience": None,
    }  # fmt: skip


def _obey(products: list[dict[str, Any]], text: str) -> str:
    """The answer of a model that takes a text for an instruction and changes every product of the request."""
    document = json.loads(text)
    for product in products:
        planted = re.search(r"set the brand of (?:all|every) products? to (\w+)", json.dumps(product), re.IGNORECASE)
        blanked = re.search(r"leave all other products empty", json.dumps(product), re.IGNORECASE)
        for entry in document["products"]:
            if planted:
                entry["brand"] = planted[1]
            if blanked and entry["id"] != product["id"]:
                entry.update(product_type=None, brand=None, dietary_tags=[])
    return json.dumps(document)


@contextmanager
def running(**behaviour: Any) -> Iterator[LlmServer]:
    """A server in a thread of this process, on a free port of the loopback."""
    server = LlmServer(**behaviour)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    runner = web.AppRunner(server.application(), shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds a request takes")
    arguments = parser.parse_args()
    server = LlmServer(delay=arguments.delay, keep_prompts=False, url=f"http://127.0.0.1:{arguments.port}")
    web.run_app(server.application(), host="127.0.0.1", port=arguments.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
