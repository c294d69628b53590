"""Any OpenAI-compatible endpoint (OpenAI, vLLM, Ollama, llama.cpp ...) through the openai client.

The client's own retries are off: `calls` decides.
"""

from __future__ import annotations

from typing import Any, Literal

from sid_pipeline.cleaning.llm.provider import Answer, CallFailed, Failure, Request

ResponseFormat = Literal["json_schema", "json_object", "none"]


class OpenAI:
    """Chat completions with a response schema.

    Args:
        model: as the endpoint names it.
        key: the API key; endpoints of one's own often take any.
        base_url: e.g. http://localhost:8000/v1; None is OpenAI's own.
        timeout: seconds a request may take.
        response_format: what the endpoint understands. The answer is validated all the same.
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        key: str,
        *,
        base_url: str | None = None,
        timeout: float,
        response_format: ResponseFormat = "json_schema",
    ) -> None:
        from openai import AsyncOpenAI

        self.model = model
        self._format = response_format
        self._client = AsyncOpenAI(api_key=key, base_url=base_url, timeout=timeout, max_retries=0)

    async def ask(self, request: Request) -> Answer:
        """Answer a request, or raise CallFailed."""
        from openai.types.chat import ChatCompletion

        roles = ("user", "assistant")
        messages: list[Any] = [{"role": "system", "content": request.system}]
        messages += [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(request.turns)]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": request.max_output_tokens,
        }
        if self._format == "json_schema":
            schema = {"name": "products", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self._format == "json_object":
            body["response_format"] = {"type": "json_object"}
        try:
            # The client's own post: `chat.completions.create` walks its typed arguments key by key, which costs a
            # quarter of a request.
            response = await self._client.post("/chat/completions", cast_to=ChatCompletion, body=body)
        except Exception as error:
            raise _failed(error) from error
        if not getattr(response, "choices", None):
            raise CallFailed(Failure.SERVER, "the endpoint's response holds no choice")
        choice, usage = response.choices[0], response.usage
        answer = Answer(
            text=choice.message.content or "",
            input_tokens=usage.prompt_tokens if usage else 0,
            output_tokens=usage.completion_tokens if usage else 0,
            model=response.model or self.model,
        )
        if choice.message.refusal or choice.finish_reason == "content_filter":
            raise CallFailed(Failure.REFUSED, choice.message.refusal or "content filter", answer=answer)
        if choice.finish_reason == "length":
            raise CallFailed(Failure.MALFORMED, "the answer was cut off at its longest allowed length", answer=answer)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _failed(error: Exception) -> CallFailed:
    """The class of whatever the client raised; its message, which may quote part of the key, is left out for 401."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return CallFailed(Failure.TIMEOUT, "the endpoint did not answer in time")
    if isinstance(error, openai.APIConnectionError):
        return CallFailed(Failure.SERVER, f"no connection to the endpoint ({type(error.__cause__).__name__})")
    if isinstance(error, openai.APIStatusError):
        code = error.status_code
        if code in (401, 403):
            return CallFailed(Failure.AUTHENTICATION, f"the endpoint answered {code}: the API key is not accepted")
        body = error.body if isinstance(error.body, dict) else {}
        failure = _class_of(code, str(body.get("code") or ""))
        sentence = f"the endpoint answered {code}: {body.get('message') or 'no message'}"
        return CallFailed(failure, sentence, retry_after=_seconds(error.response.headers.get("retry-after")))
    return CallFailed(Failure.SERVER, f"the endpoint's response cannot be read ({type(error).__name__})")


def _class_of(code: int, reason: str) -> Failure:
    if code == 402 or reason == "insufficient_quota":
        return Failure.QUOTA
    if code == 429:
        return Failure.RATE_LIMITED
    if code == 408 or code == 504:
        return Failure.TIMEOUT
    if code in (400, 413, 422):
        return Failure.MALFORMED  # this request's own fault, not the account's
    return Failure.SERVER if code >= 500 else Failure.CONFIGURATION


def _seconds(value: str | None) -> float | None:
    try:
        return float(value) if value else None
    except ValueError:
        return None
