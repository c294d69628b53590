"""What a run prints: figures of this run only, and a sentence once."""

from __future__ import annotations

import dagster as dg

from sid_pipeline.console import console


def run(capsys, *assets: dg.AssetsDefinition) -> str:
    job = dg.Definitions(assets=assets, jobs=[dg.define_asset_job("night")], loggers={"console": console})
    job.resolve_job_def("night").execute_in_process(raise_on_error=False, run_config={"loggers": {"console": {}}})
    return capsys.readouterr().err


def test_what_an_earlier_run_encoded_is_no_figure_of_this_one(capsys):
    def made(name: str, unchanged: bool) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def embeddings() -> dg.MaterializeResult:
            return dg.MaterializeResult(metadata={"encoded now": 76, "dagster/row_count": 9, "unchanged": unchanged})

        return embeddings

    told = {line.split()[0]: line for line in run(capsys, made("old", True), made("new", False)).splitlines()}
    assert told["old"].endswith("9 rows, unchanged") and "encoded now: 76" in told["new"]


def test_the_same_failure_of_two_flavours_is_told_once(capsys):
    def failing(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def codebook() -> None:
            raise dg.Failure(description="The taxonomy is empty.")

        return codebook

    told = run(capsys, failing("a"), failing("b"))
    assert told.count("The taxonomy is empty.") == 1 and "FAILED b: as a" in told
