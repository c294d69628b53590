"""Going live: advance, switch, rollback and hold, and what refuses them. No Spark is started."""

from __future__ import annotations

import shutil
from datetime import date, datetime, timezone

import pytest
from click.testing import CliRunner

from sid_pipeline import cli
from sid_pipeline.promotion import (
    PromotionRefused,
    go_live,
    hold,
    release_hold,
    rollback,
)
from sid_pipeline.promotion_log import promotions, standing_hold, ways_back
from sid_pipeline.publication.folder import PublicationError, verify
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.publication.publish import publish
from sid_pipeline.publication.store import StoreNotReached
from sid_pipeline.receipts import MissingInput, Receipt
from sid_pipeline.releases import ReleaseError, default_release, retire, to_refresh
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import RELEASES
from sid_pipeline.settings import load_settings
from sid_pipeline.watch import stale_flavours, what_is_served
from sid_pipeline_tests.publications import DAY2, PASSED, QUALITY, source

ADA = {"by": "Ada", "reason": "because"}


@pytest.fixture
def warehouse(tmp_path, monkeypatch):
    settings = tmp_path / "sid.toml"
    # Of its four products DAY2 withdraws one, of its three offers CUT loses two.
    tolerances = "max_product_drop = 0.25\nmax_offer_drop = 0.7"
    settings.write_text(f'[source]\nproducts = "p.csv"\n[publication]\n{tolerances}\n')
    monkeypatch.setenv("SID_SETTINGS", str(settings))
    monkeypatch.setattr(Warehouse, "spark", property(lambda self: pytest.fail("Spark was asked for")))
    return Warehouse(load_settings())


@pytest.fixture
def put(warehouse, tmp_path):
    """Publish, with the receipt that the asset would leave."""

    def put(*rows, **more) -> str:
        what = source(tmp_path, *rows, **more)
        made = publish(warehouse.store, what, tmp_path / "spool")
        facts = {"folder": made.folder, "as_of_snapshot": what.snapshot, "codebook_id": what.pins["codebook_id"]}
        warehouse.receipts.put(Receipt("esci/publication", what.release, {}, "v", facts=facts))
        return made.folder

    return put


def night(warehouse, release="r1"):
    return go_live(warehouse, "esci", release, by="pipeline", reason="checks passed", switch=False)


def live(warehouse):
    pointer = read_pointer(warehouse.store, "esci")
    return pointer and pointer["publication"]


def kinds(warehouse):
    return [row["kind"] for row in promotions(warehouse, "esci")]


def test_the_first_goes_live_and_newer_data_advances(warehouse, put):
    first = put()
    assert "first to go live" in night(warehouse).sentence and live(warehouse) == first
    assert "was live already" in night(warehouse).sentence
    second = put(DAY2, snapshot="2026-01-06")
    done = night(warehouse)
    assert "advanced, as of 2026-01-06" in done.sentence and live(warehouse) == second
    assert set(done.checks) == {
        "sids_are_sound",
        "one_vocabulary",
        "products_are_there",
        "offers_are_there",
        "not_worse_than_live",
    }
    assert kinds(warehouse) == ["first", "advance"]
    assert promotions(warehouse, "esci")[1]["previous"] == first


@pytest.mark.parametrize(
    ("worse", "figure"),
    [
        ({"usage_l1": 0.84}, "usage_l1 0.840 against 0.900 (tolerance 0.050)"),
        ({"collision_rate": 0.13}, "collision_rate 0.130 against 0.100 (tolerance 0.020)"),
        ({"share90_l1": 0.8}, "share90_l1 0.800 against 0.950 (tolerance 0.050)"),
    ],
)
def test_what_is_worse_than_live_does_not_advance(warehouse, put, worse, figure):
    first = put()
    night(warehouse)
    put(snapshot="2026-01-06", quality={**QUALITY, **worse})
    done = night(warehouse)
    assert live(warehouse) == first and figure in done.sentence and "r1 as of 2026-01-05 stays live" in done.sentence
    assert not done.checks["not_worse_than_live"].passed
    assert kinds(warehouse) == ["first"]
    with pytest.raises(PromotionRefused, match="not_worse_than_live"):
        go_live(warehouse, "esci", "r1", **ADA, switch=True)
    better = put(snapshot="2026-01-07", quality={**QUALITY, "usage_l1": 0.86})
    night(warehouse)
    assert live(warehouse) == better, "compared with what is live, not with what failed"


def test_without_figures_nothing_advances(warehouse, put):
    first = put()
    night(warehouse)
    put(snapshot="2026-01-06", quality={})
    assert "nothing was compared" in night(warehouse).sentence and live(warehouse) == first


CUT = {"p1": "1_2_0_0", "p4": (None, "no text"), "p2": ("withdrawn", "2026-01-06", "12_2_3_4"),
       "p3": ("withdrawn", "2026-01-06", "1_2_3_4")}  # fmt: skip
GONE = "2 active products against 4 of what is live: 2 fewer, which is 50.0%, allowed 25.0%."


def test_a_night_that_lacks_products_waits_for_a_whole_one(warehouse, put):
    first = put()
    night(warehouse)
    put(CUT, snapshot="2026-01-06")
    done = night(warehouse)
    assert live(warehouse) == first and not done.checks["products_are_there"].passed
    for part in (
        "r1 as of 2026-01-05 stays live", GONE, "Deliver 2026-01-06 whole and run it again: "
        "`sid run --snapshot 2026-01-06 --release r1`",
        "`sid promote r1 --flavour esci --accept-drop 2026-01-06 --by NAME --reason WHY`",
    ):  # fmt: skip
        assert part in done.sentence
    put(CUT, snapshot="2026-01-07")
    assert GONE in night(warehouse).sentence and live(warehouse) == first, "held against what is live, not the cut one"
    whole = put(snapshot="2026-01-08")
    night(warehouse)
    assert live(warehouse) == whole and kinds(warehouse) == ["first", "advance"]


def test_a_person_may_accept_missing_products_and_nothing_else(warehouse, put):
    first = put()
    night(warehouse)
    put(CUT, snapshot="2026-01-06")
    night(warehouse)
    with pytest.raises(PromotionRefused, match="2 fewer"):
        go_live(warehouse, "esci", "r1", **ADA, switch=True)
    hold(warehouse, "esci", **ADA)
    with pytest.raises(PromotionRefused, match="held by Ada"):
        go_live(warehouse, "esci", "r1", **ADA, switch=True, accept_drop="2026-01-06")
    release_hold(warehouse, "esci", **ADA)
    put(CUT, snapshot="2026-01-07", quality={**QUALITY, "usage_l1": 0.5})
    with pytest.raises(PromotionRefused, match="failed not_worse_than_live") as refused:
        go_live(warehouse, "esci", "r1", **ADA, switch=True, accept_drop="2026-01-07")
    assert "2 fewer" not in str(refused.value) and live(warehouse) == first
    cut = put(CUT, snapshot="2026-01-08")
    with pytest.raises(PromotionRefused, match="2 fewer"):
        go_live(
            warehouse, "esci", "r1", **ADA, switch=True, accept_drop="2026-01-06"
        )  # another night's, seen by nobody
    done = go_live(warehouse, "esci", "r1", **ADA, switch=True, accept_drop="2026-01-08")
    assert live(warehouse) == cut and "accepted: 2 active products against 4" in done.sentence
    last = promotions(warehouse, "esci")[-1]
    assert (last["kind"], last["by"]) == ("advance", "Ada")
    assert last["reason"] == "because; accepted: 2 active products against 4"
    again = put(CUT, snapshot="2026-01-09")
    night(warehouse)
    assert live(warehouse) == again, "what was accepted is what the next nights are held against"
    whole = put(snapshot="2026-01-10")
    night(warehouse)
    assert live(warehouse) == whole


def test_a_night_whose_offers_are_gone_waits_too(warehouse, put):
    first = put()
    night(warehouse)
    put(snapshot="2026-01-06", offers=[])
    told = night(warehouse).sentence
    assert "offers_are_there: 0 offers against 3 of what is live: 3 fewer" in told and "max_offer_drop" in told
    assert live(warehouse) == first
    accepted = go_live(warehouse, "esci", "r1", **ADA, switch=True, accept_drop="2026-01-06")
    assert "accepted: 0 offers against 3" in accepted.sentence
    assert promotions(warehouse, "esci")[-1]["reason"] == "because; accepted: 0 offers against 3"


def test_a_switch_is_held_against_the_products_of_the_release_that_is_live(warehouse, put):
    put()
    night(warehouse)
    cut = put(CUT, release="r2", snapshot="2026-01-06")
    with pytest.raises(PromotionRefused, match="2 fewer"):
        go_live(warehouse, "esci", "r2", **ADA, switch=True)
    accepted = go_live(warehouse, "esci", "r2", **ADA, switch=True, accept_drop="2026-01-06")
    assert "switched to" in accepted.sentence and live(warehouse) == cut


def test_accepting_where_nothing_is_missing_changes_nothing(warehouse, put):
    put(CUT)
    done = go_live(warehouse, "esci", "r1", **ADA, switch=True, accept_drop="2026-01-05")
    assert "first to go live" in done.sentence
    assert promotions(warehouse, "esci")[-1]["reason"] == "because"


def test_failed_sid_checks_do_not_go_live_even_first(warehouse, put):
    put(checks=[{**PASSED, "passed": False, "sentence": "3 codes are out of range."}])
    assert "3 codes are out of range" in night(warehouse).sentence and live(warehouse) is None


def test_other_embedders_do_not_advance(warehouse, put):
    first = put()
    night(warehouse)
    put(snapshot="2026-01-06", embedders={"esci": "e2"})
    assert "embedders {'esci': 'e2'} against {'esci': 'e1'}" in night(warehouse).sentence and live(warehouse) == first


def test_another_release_waits_for_a_person(warehouse, put):
    first, second = put(), put(DAY2, release="r2")
    night(warehouse)
    assert "`sid promote r2 --flavour esci" in night(warehouse, "r2").sentence and live(warehouse) == first
    done = go_live(warehouse, "esci", "r2", **ADA, switch=True)
    assert "switched to" in done.sentence and live(warehouse) == second
    last = promotions(warehouse, "esci")[-1]
    assert (last["kind"], last["by"], last["reason"], last["previous"]) == ("switch", "Ada", "because", first)


def test_rollback_goes_back_step_by_step_and_holds(warehouse, put):
    first = put()
    night(warehouse)
    second = put(DAY2, snapshot="2026-01-06")
    night(warehouse)
    put(DAY2, release="r2")
    go_live(warehouse, "esci", "r2", **ADA, switch=True)
    assert "went back to r1 as of 2026-01-06" in rollback(warehouse, "esci", **ADA).sentence
    assert live(warehouse) == second
    assert standing_hold(warehouse, "esci")["by"] == "Ada"
    assert "was live already" in night(warehouse).sentence and live(warehouse) == second
    rollback(warehouse, "esci", **ADA)
    assert live(warehouse) == first, "a second rollback goes further back, not forth"
    assert "rolled back and held by Ada" in night(warehouse).sentence and live(warehouse) == first
    with pytest.raises(PromotionRefused, match="no way back"):
        rollback(warehouse, "esci", **ADA)
    release_hold(warehouse, "esci", **ADA)
    night(warehouse)
    assert live(warehouse) == second
    rollback(warehouse, "esci", **ADA)
    assert live(warehouse) == first


def test_rollback_to_something_damaged_is_refused_by_name(warehouse, put):
    first = put()
    night(warehouse)
    second = put(DAY2, snapshot="2026-01-06")
    night(warehouse)
    (warehouse.store.folder / first / "delta.parquet").unlink()
    with pytest.raises(PublicationError, match=r"delta\.parquet is missing"):
        rollback(warehouse, "esci", **ADA)
    assert live(warehouse) == second and standing_hold(warehouse, "esci") is None


def test_a_hold_stops_both_ways_until_it_is_released(warehouse, put):
    first = put()
    night(warehouse)
    hold(warehouse, "esci", by="Bo", reason="a demo today")
    assert "held by Bo" in hold(warehouse, "esci", **ADA).sentence, "the first hold stands"
    put(snapshot="2026-01-06")
    assert "held by Bo since" in night(warehouse).sentence and live(warehouse) == first
    put(release="r2")
    with pytest.raises(PromotionRefused, match=r"a demo today\. `sid release-hold --flavour esci"):
        go_live(warehouse, "esci", "r2", **ADA, switch=True)
    assert live(warehouse) == first
    release_hold(warehouse, "esci", **ADA)
    assert "nobody held it" in release_hold(warehouse, "esci", **ADA).sentence
    assert "advanced" in night(warehouse).sentence
    assert kinds(warehouse) == ["first", "hold", "release hold", "advance"]


@pytest.mark.parametrize(
    ("state", "told"), [("trial", "`sid release keep t1`"), ("retired", "is retired, so no night refreshes it")]
)
def test_neither_a_trial_nor_a_retired_release_goes_live(warehouse, put, state, told):
    row = {
        "release": "t1", "state": state, "taxonomy_source": "x", "taxonomy_revision": "x", "embedder_ids": "{}",
        "training_snapshot": "2026-01-05", "created_at": datetime.now(timezone.utc),
    }  # fmt: skip
    warehouse.tables.append_rows(RELEASES, [{**dict.fromkeys(RELEASES.column_names), **row}])
    put(release="t1")
    assert told in night(warehouse, "t1").sentence
    with pytest.raises(PromotionRefused, match=told):
        go_live(warehouse, "esci", "t1", **ADA, switch=True)
    assert live(warehouse) is None


def test_a_hold_of_one_flavour_is_none_of_another(warehouse, put):
    hold(warehouse, "esci_gemma", **ADA)
    put()
    night(warehouse)
    assert live(warehouse)


def test_who_and_why_are_asked_for(warehouse, put):
    put()
    for asked in ({"by": " ", "reason": "x"}, {"by": "x", "reason": ""}):
        for act in (hold, release_hold, rollback):
            with pytest.raises(ValueError, match="a name and a reason"):
                act(warehouse, "esci", **asked)


def test_damage_and_absence_are_named_and_change_nothing(warehouse, put):
    with pytest.raises(MissingInput, match="there is no release 'r1'; there is none yet"):
        night(warehouse)
    folder = put()
    (warehouse.store.folder / folder / "constraints.safetensors").write_bytes(b"")
    with pytest.raises(PublicationError, match=r"constraints\.safetensors does not match"):
        night(warehouse)
    assert live(warehouse) is None and kinds(warehouse) == []


def test_the_command_line(warehouse, put):
    put()
    night(warehouse)
    second = put(DAY2, release="r2")

    def sid(*arguments):
        return CliRunner().invoke(cli.main, [*arguments, "--flavour", "esci", "--by", "Ada", "--reason", "why not"])

    assert sid("hold").exit_code == 0
    refused = sid("promote", "r2")
    assert refused.exit_code == 1 and "held by Ada" in refused.output
    assert sid("release-hold").exit_code == 0
    assert "switched to" in sid("promote", "r2").output and live(warehouse) == second
    assert "went back to r1" in sid("rollback").output
    sid("release-hold")
    put(CUT, release="r2", snapshot="2026-01-06")
    assert "2 fewer" in sid("promote", "r2").output
    assert "accepted: 2 active products against 4" in sid("promote", "r2", "--accept-drop", "2026-01-06").output
    for bad in ("../r1", "r1'; --", "a/b"):
        assert "may hold letters" in sid("promote", bad).output
    unknown = CliRunner().invoke(cli.main, ["hold", "--flavour", "x", "--by", "a", "--reason", "b"])
    assert unknown.exit_code == 1 and "no flavour 'x'; there are esci, esci_gemma" in unknown.output


def test_the_same_in_the_ui(warehouse, put):
    import dagster as dg

    from sid_pipeline.definitions import build_definitions

    put()
    night(warehouse)
    second = put(DAY2, release="r2")
    definitions = build_definitions(warehouse.settings, {"warehouse": warehouse})

    def run(job, op, **config):
        asked = {"by": "Ada", "reason": "from the UI", "flavours": ["esci"], **config}
        with dg.DagsterInstance.ephemeral() as instance:
            return definitions.resolve_job_def(job).execute_in_process(
                instance=instance, run_config={"ops": {op: {"config": asked}}}, raise_on_error=False
            )

    wrong = run("hold", "hold_flavours", flavours=["ecsi"])
    assert "no flavour 'ecsi'; there are" in wrong.failure_data_for_node("hold_flavours").user_failure_data.description
    assert promotions(warehouse, "ecsi") == []
    assert run("hold", "hold_flavours").success
    refused = run("promote", "promote_release", release="r2")
    assert not refused.success
    assert "from the UI" in refused.failure_data_for_node("promote_release").user_failure_data.description
    assert run("release_hold", "release_hold_flavours").success
    assert run("promote", "promote_release", release="r2").success and live(warehouse) == second
    assert run("rollback", "rollback_flavours").success and live(warehouse) != second
    assert kinds(warehouse) == ["first", "hold", "release hold", "switch", "rollback"]
    release_hold(warehouse, "esci", **ADA)
    cut = put(CUT, snapshot="2026-01-06")
    assert not run("promote", "promote_release", release="r1").success
    assert run("promote", "promote_release", release="r1", accept_drop="2026-01-06").success and live(warehouse) == cut


def test_a_release_that_is_not_there_is_told_once_with_those_that_are(warehouse, put):
    row = {
        "state": "served", "taxonomy_source": "x", "taxonomy_revision": "x", "embedder_ids": "{}",
        "training_snapshot": "2026-01-05", "created_at": datetime.now(timezone.utc),
    }  # fmt: skip
    rows = [{**dict.fromkeys(RELEASES.column_names), **row, "release": release} for release in ("r1", "r2")]
    warehouse.tables.append_rows(RELEASES, rows)
    done = CliRunner().invoke(cli.main, ["promote", "nope", "--by", "Ada", "--reason", "because"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: esci, esci_gemma: there is no release 'nope'; there are r1, r2.")
    assert done.output.count("nope") == 1


@pytest.mark.parametrize("broken", ["{", None])
def test_a_person_s_word_mends_a_pointer_that_is_broken_or_gone(warehouse, put, broken):
    put()
    night(warehouse)
    put(DAY2, snapshot="2026-01-06")
    night(warehouse)
    pointer = warehouse.state / "live" / "esci.json"
    whole = pointer.read_bytes()

    def spoil():
        pointer.unlink() if broken is None else pointer.write_text(broken)

    spoil()
    with pytest.raises(PublicationError, match="promote a release again"):
        night(warehouse)
    assert "esci.json" in what_is_served(warehouse)
    assert to_refresh(warehouse)[1] and stale_flavours(warehouse, date(2027, 1, 1)) == []
    assert "was live already" in go_live(warehouse, "esci", "r1", **ADA, switch=True).sentence
    assert pointer.read_bytes() == whole
    spoil()
    hold(warehouse, "esci", **ADA)
    assert pointer.read_bytes() == whole
    cut = put(CUT, snapshot="2026-01-07")
    spoil()
    with pytest.raises(PromotionRefused, match="held by Ada"):
        go_live(warehouse, "esci", "r1", **ADA, switch=True)
    assert pointer.read_bytes() == whole, "readers have something again, whatever was refused"
    spoil()
    release_hold(warehouse, "esci", **ADA)
    spoil()
    with pytest.raises(PromotionRefused, match="1 fewer"):
        go_live(warehouse, "esci", "r1", **ADA, switch=True)
    assert pointer.read_bytes() == whole and live(warehouse) != cut
    spoil()
    assert "went back to r1 as of 2026-01-05" in rollback(warehouse, "esci", **ADA).sentence
    assert kinds(warehouse) == ["first", "advance", "hold", "release hold", "rollback"]


def test_no_other_release_goes_live_by_itself_where_the_pointer_is_gone(warehouse, put):
    put()
    night(warehouse)
    put(DAY2, release="r2")
    go_live(warehouse, "esci", "r2", **ADA, switch=True)
    (warehouse.state / "live" / "esci.json").unlink()
    with pytest.raises(PublicationError, match=r"live/esci\.json is gone, though publications/esci/r1/"):
        night(warehouse, "r1")
    assert live(warehouse) is None


def test_publications_that_go_to_another_place_begin_there_with_a_person_s_word(warehouse, put, tmp_path):
    put()
    night(warehouse)
    put(DAY2, snapshot="2026-01-06")
    night(warehouse)
    elsewhere = warehouse.settings.publication.model_copy(update={"root": "elsewhere"})
    moved = Warehouse(warehouse.settings.model_copy(update={"publication": elsewhere}))
    made = publish(moved.store, source(tmp_path, DAY2, snapshot="2026-01-06"), tmp_path / "spool")
    moved.receipts.put(Receipt("esci/publication", "r1", {}, "v", facts={"folder": made.folder}))
    with pytest.raises(PublicationError, match="is gone"):
        night(moved)
    go_live(moved, "esci", "r1", **ADA, switch=True)
    assert live(moved) == made.folder


@pytest.mark.parametrize("lost", ["folder", "card", "manifest"])
def test_what_is_live_and_lost_is_named_and_a_person_s_word_leads_on(warehouse, put, lost):
    first = put()
    night(warehouse)
    second = put(DAY2, snapshot="2026-01-06")
    folder = warehouse.state / first
    if lost == "folder":
        shutil.rmtree(folder)
    elif lost == "card":
        (folder / "data_card.json").unlink()
    else:
        (folder / "manifest.json").write_text("{")
    with pytest.raises(PublicationError, match=first):
        night(warehouse)
    assert live(warehouse) == first and kinds(warehouse) == ["first"], "nothing moves by itself"
    assert "advanced" in go_live(warehouse, "esci", "r1", **ADA, switch=True).sentence and live(warehouse) == second
    assert "because; not compared with what was live: " in promotions(warehouse, "esci")[-1]["reason"]


def test_a_first_pointer_that_is_gone_opens_the_way_to_nothing_worse(warehouse, put):
    first = put()
    night(warehouse)
    (warehouse.state / "live" / "esci.json").unlink()
    put(CUT, snapshot="2026-01-06")
    done = night(warehouse)
    assert live(warehouse) is None and "nothing goes live" in done.sentence and "fewer" in done.sentence
    assert not done.checks["products_are_there"].passed
    whole = put(snapshot="2026-01-07")
    assert "first to go live" in night(warehouse).sentence and live(warehouse) == whole != first


def test_a_pointer_that_was_put_back_from_a_copy_has_a_way_back(warehouse, put):
    first = put()
    night(warehouse)
    copy = (warehouse.state / "live" / "esci.json").read_bytes()
    second = put(DAY2, snapshot="2026-01-06")
    night(warehouse)
    third = put(snapshot="2026-01-07")
    night(warehouse)
    assert ways_back(warehouse, "esci") == [second] and live(warehouse) == third
    (warehouse.state / "live" / "esci.json").write_bytes(copy)
    assert ways_back(warehouse, "esci") == []
    with pytest.raises(PromotionRefused, match="no way back"):
        rollback(warehouse, "esci", **ADA)
    assert live(warehouse) == first


def test_a_store_that_is_not_reached_moves_nothing(warehouse, put, monkeypatch):
    put()
    night(warehouse)
    put(DAY2, snapshot="2026-01-06")

    def away(*_):
        raise StoreNotReached("s3://bucket/sid/live/esci.json cannot be reached (EndpointConnectionError)")

    with monkeypatch.context() as patch:
        patch.setattr(type(warehouse.store), "read", away)
        for word in (
            lambda: go_live(warehouse, "esci", "r1", **ADA, switch=True),
            lambda: rollback(warehouse, "esci", **ADA),
            lambda: to_refresh(warehouse),
            lambda: default_release(warehouse),
        ):
            with pytest.raises(StoreNotReached, match="cannot be reached"):
                word()
    assert kinds(warehouse) == ["first"]


def test_a_release_is_not_retired_while_it_is_not_known_what_is_live(warehouse, put):
    put()
    night(warehouse)
    second = put(DAY2, snapshot="2026-01-06")
    night(warehouse)
    served = {"state": "served", "taxonomy_source": "x", "taxonomy_revision": "x", "embedder_ids": "{}"}
    row = {**dict.fromkeys(RELEASES.column_names), **served, "training_snapshot": "2026-01-05"}
    warehouse.tables.append_rows(RELEASES, [{**row, "created_at": datetime.now(timezone.utc), "release": "r1"}])
    (warehouse.state / "live" / "esci.json").unlink()
    with pytest.raises(PublicationError, match=r"gone, though .* was live"):
        retire(warehouse, "r1", "Ada", "2026-01-07")
    with pytest.raises(PublicationError, match="gone"):
        default_release(warehouse)
    go_live(warehouse, "esci", "r1", **ADA, switch=True)
    assert live(warehouse) == second and default_release(warehouse) == "r1"
    with pytest.raises(ReleaseError, match="is live for esci"):
        retire(warehouse, "r1", "Ada", "2026-01-07")


def test_a_lost_publication_that_was_the_only_one_is_made_again(warehouse, put):
    first = put()
    night(warehouse)
    folder = warehouse.state / first
    whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    shutil.rmtree(folder)
    assert put() == first
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == whole
    assert "was live already" in go_live(warehouse, "esci", "r1", **ADA, switch=True).sentence
    verify(warehouse.store, first, manifest_sha256=read_pointer(warehouse.store, "esci")["manifest_sha256"])
    # As another version of the code might write it.
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    go_live(warehouse, "esci", "r1", **ADA, switch=True)
    verify(warehouse.store, first, manifest_sha256=read_pointer(warehouse.store, "esci")["manifest_sha256"])
