"""The receipt wrapper: skips what is unchanged, reports either way, and shows people sentences, not tracebacks."""

from dataclasses import replace

import dagster as dg
import pytest

from sid_pipeline.assets.recording import Check, Earlier, Markdown, Outcome, markdown_table, materialise
from sid_pipeline.cleaning.schema import SchemaError
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.receipts import MissingInput, Receipt, Receipts
from sid_pipeline.releases import ReleaseError
from sid_pipeline.rqvae import CheckpointError, TrainingError


class Stage:
    """An asset whose input and behaviour a test sets."""

    def __init__(self, tmp_path):
        self.receipts = Receipts(tmp_path / "receipts")
        self.calls = 0
        self.input = "a"
        self.there = True
        self.error: Exception | None = None
        self.code_version = "1"
        self.frozen = False
        self.day = "2"
        self.earlier: Earlier | None = None
        self.instance = dg.DagsterInstance.ephemeral()

    def work(self) -> Outcome:
        self.calls += 1
        if self.error:
            raise self.error
        return Outcome(
            f"version of {self.input}",
            metadata={"rows": 3, "table": Markdown("**x**"), "figures": {"a": 1}},
            facts={"id": self.input},
            checks=(Check("fine", self.input != "bad", "a sentence", {"figure": 1}),),
        )

    def run(self, tags: dict[str, str] | None = None) -> dg.ExecuteInProcessResult:
        stage = self

        @dg.asset(
            key_prefix=["f"],
            code_version=self.code_version,
            check_specs=[dg.AssetCheckSpec("fine", asset=dg.AssetKey(["f", "s"]))],
        )
        def s(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            return materialise(
                context,
                stage.receipts,
                "f/s",
                {"in": stage.input, "day": stage.day},
                stage.work,
                earlier=stage.earlier,
                still_there=lambda _: stage.there,
                frozen=stage.frozen,
            )

        return dg.materialize([s], instance=self.instance, raise_on_error=False, tags=tags)


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


def materialisation(result):
    (event,) = result.get_asset_materialization_events()
    return event.step_materialization_data.materialization


def test_unchanged_inputs_do_no_work_and_are_still_recorded(stage):
    first, second = materialisation(stage.run()), materialisation(stage.run())
    assert stage.calls == 1
    assert first.tags["dagster/data_version"] == second.tags["dagster/data_version"] == "version of a"
    assert second.metadata["table"] == dg.MetadataValue.md("**x**")
    assert second.metadata["figures"] == dg.MetadataValue.json({"a": 1})
    assert (first.metadata["unchanged"].value, second.metadata["unchanged"].value) == (False, True)


def test_changed_inputs_and_lost_outputs_are_worked_on(stage):
    stage.run()
    stage.input = "b"
    assert materialisation(stage.run()).tags["dagster/data_version"] == "version of b"
    stage.there = False
    stage.run()
    assert stage.calls == 3


def test_another_code_version_and_a_run_that_asks_for_it_do_the_work_again(stage):
    stage.run()
    stage.code_version = "2"
    stage.run()
    stage.run()
    assert stage.calls == 2
    stage.run(tags={"sid/recompute": "true"})
    assert stage.calls == 3
    stage.run(tags={"sid/recompute": "false"})
    assert stage.calls == 3
    stage.frozen, stage.code_version = True, "3"
    stage.run(tags={"sid/recompute": "true"})
    assert stage.calls == 3


def earlier(stage: Stage, **but: object) -> Earlier:
    """What a run of another day left: the stage's own outcome for the input 'a', but for what a test says."""
    given = {"inputs": {"in": "a", "day": "1"}, "code_version": "1", **but}
    outcome = {"facts": {"id": "a"}, "metadata": {"rows": 3, "table": {"markdown": "**x**"}, "new": 3}}
    check = {"name": "fine", "passed": True, "sentence": "a sentence", "figures": {}, "warning": False}
    whole = {"checks": [check], **outcome, **given}
    receipt = Receipt("f/s", "1", data_version="version of a", **whole)  # type: ignore[arg-type]
    return Earlier(lambda: receipt, lambda found: Outcome.again(found, {"new": 0}, {"day": "2"}), frozenset({"day"}))


def test_what_an_earlier_day_made_of_the_same_inputs_serves_again(stage):
    stage.earlier = earlier(stage)
    result = stage.run()
    assert stage.calls == 0
    made = materialisation(result)
    assert made.tags["dagster/data_version"] == "version of a" and made.metadata["unchanged"].value is False
    assert made.metadata["table"] == dg.MetadataValue.md("**x**") and made.metadata["new"].value == 0
    (check,) = result.get_asset_check_evaluations()
    assert check.passed and check.description == "a sentence"
    kept = stage.receipts.need("f/s")
    assert kept.inputs == {"in": "a", "day": "2"} and kept.facts == {"id": "a", "day": "2"}
    assert materialisation(stage.run()).metadata["unchanged"].value is True


def test_an_earlier_output_may_be_of_the_same_partition(stage):
    stage.run()
    stage.day = "3"
    stage.earlier = Earlier(
        lambda: stage.receipts.get("f/s"), lambda found: Outcome.again(found, {}, {"day": "3"}), frozenset({"day"})
    )
    stage.run()
    assert stage.calls == 1 and stage.receipts.need("f/s").facts["day"] == "3"


@pytest.mark.parametrize(
    "but",
    [
        {"inputs": {"in": "b", "day": "2"}},
        {"inputs": {"in": "a"}},
        {"inputs": {"in": "a", "day": "2", "more": 1}},
        {"code_version": "0"},
        {"checks": [{"name": "fine", "passed": False, "sentence": "no", "figures": {}, "warning": False}]},
    ],
)
def test_what_was_made_otherwise_does_not_serve_again(stage, but):
    stage.earlier = earlier(stage, **but)
    stage.run()
    assert stage.calls == 1


def test_what_turns_out_not_to_be_whole_is_worked_on(stage):
    stage.earlier = replace(earlier(stage), serve=lambda _: None)
    assert stage.run().success and stage.calls == 1
    assert stage.receipts.need("f/s").facts == {"id": "a"}


def test_nothing_serves_again_where_a_run_asks_for_the_work_or_nothing_is_there(stage):
    stage.earlier = earlier(stage)
    stage.run(tags={"sid/recompute": "true"})
    assert stage.calls == 1
    stage.receipts.forget("f/s", "all")
    stage.earlier = Earlier(lambda: None, lambda _: pytest.fail("there is nothing"))
    stage.run()
    assert stage.calls == 2


def test_checks_are_reported_again_when_nothing_changed(stage):
    stage.input = "bad"
    for _ in range(2):
        (check,) = stage.run().get_asset_check_evaluations()
        assert not check.passed and check.description == "a sentence"
    assert stage.calls == 1


def test_a_mendable_fault_is_one_sentence_and_is_not_retried(stage):
    stage.error = InputError("column 'title' is missing: add it")
    result = stage.run()
    failure = result.failure_data_for_node("f__s")
    assert failure.user_failure_data.description == "column 'title' is missing: add it"
    assert stage.receipts.get("f/s") is None


@pytest.mark.parametrize("fault", [TrainingError, CheckpointError, SchemaError, ReleaseError])
def test_faults_that_name_their_mend_are_shown_as_they_are(stage, fault):
    stage.error = fault("delete that file")
    failure = stage.run().failure_data_for_node("f__s")
    assert failure.user_failure_data.description == "delete that file"


def test_after_a_fault_the_last_receipt_counts_for_nothing_and_a_rerun_completes(stage):
    stage.run()
    stage.input, stage.error = "b", InputError("no")
    assert not stage.run().success
    with pytest.raises(MissingInput, match="did not end well"):
        stage.receipts.need("f/s")
    # Back to the first input: the work that failed may have written half of its output.
    stage.input, stage.error = "a", None
    assert stage.run().success
    assert stage.calls == 3
    assert stage.receipts.need("f/s").inputs["in"] == "a"


def test_cells_cannot_break_the_table_or_run():
    text = markdown_table([{"title": "<script>alert(1)</script> a|b\nc [x](javascript:y)"}])
    assert "<script" not in text and "&lt;script" in text
    assert "a&#124;b c" in text
    assert "[x]" not in text
    assert markdown_table([{"t": "x" * 100}], width=10).splitlines()[2] == "| xxxxxxxxx… |"


def test_a_failure_is_kept_for_the_status_until_the_asset_succeeds(stage):
    stage.run()
    stage.input, stage.error = "b", InputError("p.csv, row 3: no title.")
    assert not stage.run().success
    (trouble,) = stage.receipts.troubles()
    assert (trouble.asset, trouble.partition, trouble.sentence) == ("f/s", "all", "p.csv, row 3: no title.")
    stage.error = KeyError("what")
    stage.run()
    assert stage.receipts.troubles()[0].sentence.startswith("KeyError: 'what'. The full log is in the UI")
    stage.error = None
    assert stage.run().success and stage.receipts.troubles() == []


def test_a_failure_before_the_work_goes_with_an_unchanged_success(stage):
    stage.run()
    stage.receipts.fail("f/s", "all", "The source is missing.")
    assert stage.run().success and stage.calls == 1 and stage.receipts.troubles() == []


def test_an_interrupt_leaves_work_that_did_not_come_to_its_end(stage, monkeypatch):
    monkeypatch.setattr(Receipts, "put", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    stage.run()
    (trouble,) = stage.receipts.troubles()
    assert (trouble.asset, trouble.sentence) == ("f/s", None)


def test_a_disk_that_takes_no_record_hides_no_failure(stage, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Receipts, "fail", full)
    stage.error = InputError("p.csv, row 3: no title.")
    failure = stage.run().failure_data_for_node("f__s")
    assert failure.user_failure_data.description == "p.csv, row 3: no title."
