"""The code location: light to import, complete in what it says of itself, exact in its lineage."""

import subprocess
import sys

import dagster as dg
import pytest

from sid_pipeline.definitions import build_definitions
from sid_pipeline.settings import load_settings

HEAVY = ("torch", "pyspark", "sentence_transformers", "transformers", "sklearn", "deltalake")


@pytest.fixture(scope="module")
def definitions():
    return build_definitions(load_settings(env={}))


@pytest.fixture(scope="module")
def specs(definitions):
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_importing_the_definitions_pulls_in_nothing_heavy():
    code = f"import sys, sid_pipeline.definitions; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_assets_are_those_of_the_architecture(specs):
    per_flavour = (
        "training_set",
        "codebook",
        "semantic_ids",
        "report",
        "prefix_names",
        "codebook_diff",
        "publication",
        "live",
    )
    assert sorted(specs) == sorted(
        [
            "products", "offers", "rejected_products", "cleaned_attributes", "esci_embeddings", "gemma_embeddings",
            "relevance_labels", "esci_model", "taxonomy", "flavour_comparison", "explorer",
            *[f"{flavour}/{stage}" for flavour in ("esci", "esci_gemma") for stage in per_flavour],
        ]
    )  # fmt: skip


def test_every_asset_says_what_it_is_whose_it_is_and_what_it_is_made_with(specs):
    for name, spec in specs.items():
        assert spec.description and len(spec.description) > 40, name
        assert spec.group_name and spec.owners and spec.kinds, name


def test_tables_carry_their_column_schema(specs):
    for name in (
        "products",
        "cleaned_attributes",
        "taxonomy",
        "esci/semantic_ids",
        "esci_gemma/prefix_names",
    ):
        schema = specs[name].metadata["dagster/column_schema"]
        assert all(column.description for column in schema.columns), name


def upstream(specs, name):
    found, queue = set(), [name]
    while queue:
        for dep in specs[queue.pop()].deps:
            key = dep.asset_key.to_user_string()
            if key not in found:
                found.add(key)
                queue.append(key)
    return found


def test_the_precision_flavour_never_waits_for_cleaning(specs):
    assert not upstream(specs, "esci/live") & {"cleaned_attributes", "gemma_embeddings"}
    assert "cleaned_attributes" in upstream(specs, "esci_gemma/live")
    assert not any(key.startswith("esci/") for key in upstream(specs, "esci_gemma/live"))


def test_names_wait_for_the_tree_that_they_tell(specs):
    # Of their own: in the job of a minor revision no other asset stands between the two.
    assert "taxonomy" in {dep.asset_key.to_user_string() for dep in specs["esci/prefix_names"].deps}


def test_a_third_flavour_is_one_entry_in_the_settings():
    env = {
        "SID_FLAVOURS__BOTH__DESCRIPTION": "both views joined",
        "SID_FLAVOURS__BOTH__EMBEDDERS": "{esci = 1.0, gemma = 1.0}",
    }
    definitions = build_definitions(load_settings(env=env))
    specs = {s.key.to_user_string(): s for s in definitions.resolve_all_asset_specs()}
    assert upstream(specs, "both/live") >= {"esci_embeddings", "gemma_embeddings"}
    definitions.resolve_job_def("release_build")


def test_jobs_keep_to_one_plane(definitions):
    assert isinstance(definitions.resolve_job_def("snapshot_refresh").partitions_def, dg.DailyPartitionsDefinition)
    for job in ("release_build", "sid_refresh"):
        assert isinstance(definitions.resolve_job_def(job).partitions_def, dg.DynamicPartitionsDefinition)


def test_automation_is_off_unless_it_is_asked_for():
    for wanted in (False, True):
        env = {"SID_ORCHESTRATION__AUTOMATION": str(wanted).lower()}
        definitions = build_definitions(load_settings(env=env))
        for schedule in definitions.schedules:
            assert (schedule.default_status == dg.DefaultScheduleStatus.RUNNING) is wanted
        for sensor in definitions.sensors:
            assert (sensor.default_status == dg.DefaultSensorStatus.RUNNING) is wanted


def test_the_launchpad_form_describes_every_training_setting(definitions):
    from sid_pipeline.assets.training import CodebookConfig
    from sid_pipeline.rqvae import TrainConfig

    fields = CodebookConfig.model_fields
    assert set(fields) == set(TrainConfig.describe())
    assert all(field.description and field.default is None for field in fields.values())
