"""Gemini through the google-genai client: single requests, and the Batch API for backfills.

The client's own retries are off: `calls` decides. Which of these calls were never run against the real service stands
in docs/cleaning.md.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sid_pipeline.cleaning.llm.provider import Answer, CallFailed, Failure, JobGone, JobState, Request

if TYPE_CHECKING:
    from google import genai
    from google.genai import errors, types

_REFUSALS = frozenset({"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "OTHER"})
_STATES = {
    "JOB_STATE_SUCCEEDED": JobState.DONE,
    "JOB_STATE_PARTIALLY_SUCCEEDED": JobState.DONE,
    "JOB_STATE_EXPIRED": JobState.EXPIRED,
    "JOB_STATE_FAILED": JobState.FAILED,
    "JOB_STATE_CANCELLED": JobState.FAILED,
}


class Gemini:
    """The Gemini Developer API.

    Args:
        model: e.g. gemini-2.5-flash-lite.
        key: the API key.
        base_url: another address than Google's, for a proxy or a test.
        timeout: seconds a single request may take.
        thinking_budget: tokens the model may think; None leaves it to the model's default.
    """

    name = "gemini"

    def __init__(
        self, model: str, key: str, *, base_url: str | None = None, timeout: float, thinking_budget: int | None = None
    ) -> None:
        self.model = model
        self._key = key
        self._base_url = base_url
        self._thinking_budget = thinking_budget
        self._timeout = timeout
        self._clients: dict[tuple[str, int], genai.Client] = {}

    async def ask(self, request: Request) -> Answer:
        """Answer a request, or raise CallFailed."""
        from google.genai import types

        roles = ("user", "model")
        turns = [types.Content(role=roles[i % 2], parts=[types.Part(text=t)]) for i, t in enumerate(request.turns)]
        contents: Any = turns if len(turns) > 1 else request.turns[0]
        try:
            call = self._client(request).aio.models.generate_content(model=self.model, contents=contents)
            response = await asyncio.wait_for(call, self._timeout)
        except Exception as error:
            raise _failed(error) from error
        return _answer(response, self.model)

    def batch_line(self, key: str, request: Request) -> str:
        """One line of a job's file, in the REST API's own names."""
        contents = [{"role": "user", "parts": [{"text": turn}]} for turn in request.turns]
        return json.dumps({"key": key, "request": {"contents": contents, **self._body(request)}}, ensure_ascii=False)

    async def submit(self, requests: Path, display_name: str) -> str:
        """Upload the file, start a job and return its name."""
        from google.genai import types

        try:
            file = await self._client().aio.files.upload(
                file=str(requests), config=types.UploadFileConfig(display_name=display_name, mime_type="jsonl")
            )
            job = await self._client().aio.batches.create(
                model=self.model, src=str(file.name), config=types.CreateBatchJobConfig(display_name=display_name)
            )
        except Exception as error:
            raise _failed(error) from error
        return str(job.name)

    async def find(self, display_name: str) -> str | None:
        """The job that was started under a displayed name, if any."""
        try:
            async for job in await self._client().aio.batches.list():
                if job.display_name == display_name:
                    return str(job.name)
        except Exception as error:
            raise _failed(error) from error
        return None

    async def state(self, job: str) -> tuple[JobState, str]:
        """Where the job stands, with the service's own words."""
        try:
            found = await self._client().aio.batches.get(name=job)
        except Exception as error:
            raise _gone(error) or _failed(error) from error
        name = found.state.name if found.state else "JOB_STATE_UNSPECIFIED"
        message = f"{name}: {found.error.message}" if found.error and found.error.message else name
        return _STATES.get(name, JobState.RUNNING), message

    async def results(self, job: str) -> AsyncIterator[tuple[str, Answer | CallFailed]]:
        """Key and answer of every request of the job's result file."""
        try:
            found = await self._client().aio.batches.get(name=job)
            if found.dest is None or found.dest.file_name is None:
                return
            content = await self._client().aio.files.download(file=found.dest.file_name)
        except Exception as error:
            raise _gone(error) or _failed(error) from error
        for line in content.splitlines():
            if line.strip():
                yield _result(line, self.model)

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.aio.aclose()

    def _client(self, request: Request | None = None) -> genai.Client:
        """The client for requests of one instruction and length; without a request, the one for batch jobs.

        What is the same in every request goes into its client as `extra_body`: given as a config, the client would
        copy and convert it anew for each of them, which more than halves the requests that one core can make.
        """
        from google import genai
        from google.genai import types

        key = (request.system, request.max_output_tokens) if request else ("", 0)
        if key not in self._clients:
            options = types.HttpOptions(
                base_url=self._base_url,
                api_version="v1beta",  # the client's default differs between its versions
                timeout=int(self._timeout * 1000),
                retry_options=types.HttpRetryOptions(attempts=1),
                extra_body=self._body(request) if request else None,
                # Many requests in flight share one pool; the default of 100 connections would make them wait.
                async_client_args={"limits": _limits()} if _uses_httpx() else None,
            )
            self._clients[key] = genai.Client(api_key=self._key, vertexai=False, http_options=options)
        return self._clients[key]

    def _body(self, request: Request) -> dict[str, Any]:
        """What a request says besides its turns, in the REST API's own names."""
        generation: dict[str, Any] = {
            "responseMimeType": "application/json",
            "responseJsonSchema": dict(request.schema),
            "temperature": 0,
            "maxOutputTokens": request.max_output_tokens,
        }
        if self._thinking_budget is not None:
            generation["thinkingConfig"] = {"thinkingBudget": self._thinking_budget}
        return {"systemInstruction": {"parts": [{"text": request.system}]}, "generationConfig": generation}


_KEY = re.compile(rb'"key"\s*:\s*"([^"\\]*)"')


def _result(line: bytes, model: str) -> tuple[str, Answer | CallFailed]:
    """Key and answer of one line of a job's results; whatever is wrong with it is a failed call of its key."""
    from google.genai import types

    found = _KEY.search(line)
    key = found[1].decode("utf-8", "replace") if found else ""
    try:
        record = json.loads(line)
        key = str(record.get("key") or "")
        if record.get("response") is not None:
            return key, _answer(types.GenerateContentResponse.model_validate(record["response"]), model)
        fault = record.get("error") or {}
        return key, CallFailed(_class_of(_code(fault.get("code")), fault), str(fault.get("message", "")))
    except CallFailed as failed:
        return key, failed
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return key, CallFailed(Failure.SERVER, f"the line of a batch job's results cannot be read: {error}")


def _answer(response: types.GenerateContentResponse, model: str) -> Answer:
    """The answer of a response, or CallFailed where it was refused or cut off."""
    usage = response.usage_metadata
    candidate = response.candidates[0] if response.candidates else None
    parts = candidate.content.parts if candidate and candidate.content and candidate.content.parts else []
    answer = Answer(
        text="".join(part.text or "" for part in parts if not part.thought),
        input_tokens=(usage.prompt_token_count or 0) if usage else 0,
        output_tokens=((usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)) if usage else 0,
        model=response.model_version or model,
    )
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason is not None:
        raise CallFailed(Failure.REFUSED, f"the prompt was blocked: {feedback.block_reason.name}", answer=answer)
    finish = candidate.finish_reason.name if candidate and candidate.finish_reason else None
    if finish in _REFUSALS:
        raise CallFailed(Failure.REFUSED, f"the answer was withheld: {finish}", answer=answer)
    if finish == "MAX_TOKENS":
        raise CallFailed(Failure.MALFORMED, "the answer was cut off at its longest allowed length", answer=answer)
    return answer


def _failed(error: Exception) -> CallFailed:
    """The class of whatever the client raised. The message never holds the key: it is only ever sent in a header."""
    from google.genai import errors

    if isinstance(error, CallFailed):
        return error
    if isinstance(error, errors.APIError):
        code, body, sentence = _told(error)
        return CallFailed(_class_of(code, body), sentence, retry_after=_retry_delay(body))
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)) or "Timeout" in type(error).__name__:
        return CallFailed(Failure.TIMEOUT, "Gemini did not answer in time")
    if isinstance(error, (json.JSONDecodeError, errors.UnknownApiResponseError)):
        return CallFailed(Failure.SERVER, "Gemini's response was no JSON")
    return CallFailed(Failure.SERVER, f"no connection to Gemini ({type(error).__name__})")


def _gone(error: Exception) -> JobGone | None:
    """The error as that of a job or file which the service does not know any more, if it is one.

    Of what is another's or was deleted it says 403 as well as 404. Where it says why (no right to the service at all),
    it is the account that is meant, not the job.
    """
    from google.genai import errors

    if not isinstance(error, errors.APIError):
        return None
    code, body, sentence = _told(error)
    why = any(isinstance(detail, dict) and detail.get("reason") for detail in body.get("details") or [])
    return JobGone(sentence) if code in (403, 404) and not why else None


def _told(error: errors.APIError) -> tuple[int, dict[str, Any], str]:
    """Status code, body and a sentence of what the service answered."""
    details = error.details if isinstance(error.details, dict) else {}
    body, code = details.get("error", details), _code(error.code)
    return code, body, f"Gemini answered {code}: {body.get('message') or error.status or 'no message'}"


def _code(value: Any) -> int:
    """A status code; 500 for one that is none, such as a word."""
    try:
        return int(value or 500)
    except (TypeError, ValueError):
        return 500


def _class_of(code: int, body: dict[str, Any]) -> Failure:
    details = [d for d in body.get("details") or [] if isinstance(d, dict)]
    if code == 429:
        quotas = [str(v.get("quotaId", "")) for d in details for v in d.get("violations") or []]
        return Failure.QUOTA if any("PerDay" in quota for quota in quotas) else Failure.RATE_LIMITED
    if code in (401, 403) or any(d.get("reason") == "API_KEY_INVALID" for d in details):
        return Failure.AUTHENTICATION
    if code == 402:
        return Failure.QUOTA
    if code in (408, 504):
        return Failure.TIMEOUT
    if code in (400, 413):
        return Failure.MALFORMED  # this request's own fault, not the account's
    return Failure.SERVER if code >= 500 else Failure.CONFIGURATION


def _retry_delay(body: dict[str, Any]) -> float | None:
    for detail in body.get("details") or []:
        delay = str(detail.get("retryDelay", "")) if isinstance(detail, dict) else ""
        if delay.endswith("s"):
            try:
                return float(delay[:-1])
            except ValueError:
                return None
    return None


def _uses_httpx() -> bool:
    """Whether the client will use httpx: it takes aiohttp where that is installed."""
    from importlib.util import find_spec

    return find_spec("aiohttp") is None


def _limits() -> Any:
    from importlib import import_module
    from importlib.util import find_spec

    httpx = import_module("httpx2" if find_spec("httpx2") else "httpx")  # httpx with google-genai 2 (Python 3.10)
    return httpx.Limits(max_connections=None, max_keepalive_connections=None)
