"""The LLM cleaner of the settings. Keys come from the environment, here and nowhere else, and go to the client only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sid_pipeline.settings import CleaningSettings, Settings

if TYPE_CHECKING:
    from sid_pipeline.cleaning.llm.calls import Calls, Policy
    from sid_pipeline.cleaning.llm.cleaner import LlmCleaner
    from sid_pipeline.cleaning.llm.costs import Price
    from sid_pipeline.cleaning.llm.provider import Provider

KEY_VARIABLES = {"gemini": "GEMINI_API_KEY", "openai": "OPENAI_API_KEY"}


def llm_cleaner(settings: Settings) -> LlmCleaner:
    """The cleaner that `cleaning` in the settings describes; connects to nothing yet.

    Raises:
        SchemaError: the schema or the prompt cannot be used.
    """
    from sid_pipeline.cleaning.llm.batch import BatchPolicy
    from sid_pipeline.cleaning.llm.cleaner import LlmCleaner, LlmOptions
    from sid_pipeline.cleaning.llm.prompt import Prompt
    from sid_pipeline.cleaning.schema import Schema

    cleaning = settings.cleaning
    schema = Schema.load(cleaning.attributes, settings.root)
    may_batch = cleaning.provider == "gemini" and cleaning.per_prompt == 1
    options = LlmOptions(
        provider=cleaning.provider,
        model=cleaning.model_name,
        per_prompt=cleaning.per_prompt,
        max_output_tokens=cleaning.max_output_tokens,
        policy=_policy(cleaning),
        price=_price(cleaning),
        budget=cleaning.budget,
        batch=cleaning.batch if may_batch else "never",
        batch_from=cleaning.batch_from,
        batch_policy=BatchPolicy(
            rows=cleaning.batch_rows,
            poll_seconds=cleaning.batch_poll_seconds,
            deadline=cleaning.batch_deadline_hours * 3600,
        ),
    )
    return LlmCleaner(Prompt.load(cleaning.prompt, schema, settings.root), lambda: connect(cleaning), options)


def llm_calls(cleaning: CleaningSettings, provider: Provider) -> Calls:
    """Calls to a service outside of cleaning, under its limits: requests in flight, deadlines, budget of one run."""
    from sid_pipeline.cleaning.llm.calls import Calls
    from sid_pipeline.cleaning.llm.costs import Budget

    return Calls(provider, _policy(cleaning), Budget(cleaning.budget, _price(cleaning)))


def _policy(cleaning: CleaningSettings) -> Policy:
    from sid_pipeline.cleaning.llm.calls import Policy

    return Policy(
        in_flight=cleaning.in_flight,
        deadline=cleaning.deadline_seconds,
        outage=cleaning.outage_seconds,
        longest=cleaning.max_minutes * 60 if cleaning.max_minutes else None,
    )


def _price(cleaning: CleaningSettings) -> Price | None:
    from sid_pipeline.cleaning.llm.costs import Price

    price = cleaning.price
    return Price(price.input, price.output, price.batch) if price else None


def connect(cleaning: CleaningSettings, env: Mapping[str, str] | None = None) -> Provider:
    """The client of the service.

    Raises:
        CallFailed: the environment holds no key for it.
    """
    from sid_pipeline.cleaning.llm.gemini import Gemini
    from sid_pipeline.cleaning.llm.openai import OpenAI
    from sid_pipeline.cleaning.llm.provider import CallFailed, Failure

    variable = cleaning.api_key_env or KEY_VARIABLES[cleaning.provider]
    key = (os.environ if env is None else env).get(variable, "").strip()
    if not key and not (cleaning.provider == "openai" and cleaning.base_url):
        raise CallFailed(
            Failure.AUTHENTICATION,
            f"the environment variable {variable} is not set, so {cleaning.provider} was not called: set it to the "
            "service's API key",
        )
    if cleaning.provider == "gemini":
        return Gemini(
            cleaning.model_name,
            key,
            base_url=cleaning.base_url,
            timeout=cleaning.timeout_seconds,
            thinking_budget=cleaning.thinking_budget,
        )
    return OpenAI(
        cleaning.model_name,
        key or "none",  # endpoints of one's own often want none, the client wants some
        base_url=cleaning.base_url,
        timeout=cleaning.timeout_seconds,
        response_format=cleaning.response_format,
    )
