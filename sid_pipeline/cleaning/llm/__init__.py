"""Cleaning by a large language model: cheap, checkable, and never in the way of the night.

`provider` is what a service must offer, `gemini` and `openai` are the two that exist. `prompt` and `answer` turn texts
into a request and an answer into checked attributes. `calls` decides what a failure means: retry, repair, give up or
stop. `stream` keeps many requests in flight, `batch` runs jobs of a batch service, both through a `spool` that loses
no answer. `costs` counts money, `cleaner` puts it together behind the interface of every cleaner.
"""
