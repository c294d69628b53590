"""Jobs that make no data: promote, rollback, hold and release-hold, each with a form for a person, and retention.

The same functions as the commands of these names; a refusal is a failed run that shows its sentence.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import dagster as dg
from pydantic import Field

from sid_pipeline import promotion
from sid_pipeline.assets.recording import markdown_table, plain_failures
from sid_pipeline.resources.warehouse import Warehouse


class Asked(dg.Config):
    """Who asks, for what, and why."""

    by: str = Field(description="Who asks for it; goes into the log.")
    reason: str = Field(description="Why; goes into the log.")
    flavours: list[str] = Field(default_factory=list, description="Which flavours. Default: every flavour.")


class PromoteConfig(Asked):
    """`Asked`, and the release to make live."""

    release: str = Field(description="The release to make live.")
    accept_drop: str | None = Field(
        default=None,
        description="A day (YYYY-MM-DD): also if that day has far fewer products or offers than what is live.",
    )


class RetentionConfig(dg.Config):
    """Whether anything is done."""

    dry_run: bool = Field(default=False, description="Only say what would go, and why.")


@dg.op(name="take_away", description="Take away what nothing kept needs, and compact the tables.")
def _take_away(context: dg.OpExecutionContext, warehouse: dg.ResourceParam[Warehouse], config: RetentionConfig) -> None:
    from sid_pipeline import retention

    with plain_failures():
        plan = retention.plan(warehouse, context.instance, but=context.run_id)
    if not config.dry_run:
        for sentence in retention.take_away(warehouse, plan, context.instance, but=context.run_id):
            context.log.warning(sentence)
    rows = [vars(removal) for removal in plan.removals]
    kinds = Counter(removal.kind for removal in plan.removals)
    context.log.info(f"{'would go' if config.dry_run else 'gone'}: {dict(kinds) or 'nothing'}")
    context.add_output_metadata(
        {
            "what and why": dg.MetadataValue.md(markdown_table(rows[:500], width=160)),
            **{f"number: {kind}": number for kind, number in kinds.items()},
        }
    )


@dg.job(description="Take away what nothing kept needs ([retention]), and compact the tables. See sid retention.")
def retention() -> None:
    """See `sid_pipeline.retention`."""
    _take_away()


def build_operations() -> list[dg.JobDefinition]:
    """The jobs."""

    @dg.op(name="promote_release", description="Make the newest publication of a release live, if its checks pass.")
    def promote(context: dg.OpExecutionContext, warehouse: dg.ResourceParam[Warehouse], config: PromoteConfig) -> None:
        def act(flavour: str) -> promotion.Promotion:
            asked: Any = {"by": config.by, "reason": config.reason, "accept_drop": config.accept_drop}
            return promotion.go_live(warehouse, flavour, config.release, switch=True, **asked)

        _each(context, warehouse, config, act)

    jobs = [retention, _job("promote", promote)]
    for name, function, description in (
        ("rollback", promotion.rollback, "Make live again what was live before, and hold it there."),
        ("hold", promotion.hold, "Keep what is live: neither newer data nor a promotion changes it."),
        ("release_hold", promotion.release_hold, "End a hold: the next refresh advances the flavour again."),
    ):
        jobs.append(_job(name, _asked_op(name, function, description)))
    return jobs


def _asked_op(name: str, function: Callable[..., promotion.Promotion], description: str) -> dg.OpDefinition:
    @dg.op(name=f"{name}_flavours", description=description)
    def asked(context: dg.OpExecutionContext, warehouse: dg.ResourceParam[Warehouse], config: Asked) -> None:
        _each(context, warehouse, config, lambda f: function(warehouse, f, by=config.by, reason=config.reason))

    return asked


def _job(name: str, op: dg.OpDefinition) -> dg.JobDefinition:
    @dg.job(name=name, description=op.description)
    def job() -> None:
        op()

    return job


def _each(
    context: dg.OpExecutionContext, warehouse: Warehouse, config: Asked, act: Callable[[str], promotion.Promotion]
) -> None:
    """Act for each flavour; what is refused for one does not hold back the others."""
    failures: list[dg.Failure] = []
    happened: dict[str, Any] = {}
    with plain_failures():
        flavours = promotion.flavours_asked(warehouse, config.flavours)
    for flavour in flavours:
        try:
            with plain_failures():
                happened[flavour] = act(flavour).sentence
                context.log.info(happened[flavour])
        except dg.Failure as failure:
            failures.append(failure)
    if failures:
        told = "\n".join(str(f.description) for f in failures)
        raise dg.Failure(description=told, metadata=happened) from failures[0].__cause__
    context.add_output_metadata(happened)
