"""Nights cleaned by a language model: fallback and retry, money, kills; real tables, real clients, a local server."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from sid_pipeline import cli
from sid_pipeline.assets.cleaning import cleaning_assets
from sid_pipeline.assets.snapshot import snapshot_assets
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.retention import plan, take_away
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, CLEANING_CALLS, SNAPSHOT_CLEANINGS
from sid_pipeline.settings import RetentionSettings, load_settings
from sid_pipeline_tests.llm_server import KEY, running
from sid_pipeline_tests.webhook import webhook

ROOT = str(Path(__file__).resolve().parents[2])
pytestmark = pytest.mark.slow  # a dozen nights in Spark

DAYS = [f"2026-01-{day:02d}" for day in range(5, 14)]
SETTINGS = """
[source]
products = "catalogue/{snapshot}.csv"

[cleaning]
provider = "gemini"
model = "gemini-test"
outage_seconds = 2
deadline_seconds = 4
in_flight = 8
batch = "never"

[cleaning.prices.gemini-test]
input = 1.0
output = 2.0
"""


def catalogue(folder: Path, day: str, numbers: Iterable[int]) -> None:
    (folder / "catalogue").mkdir(exist_ok=True)
    with (folder / "catalogue" / f"{day}.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["product_id", "title", "brand", "category"])
        rows.writerows([f"P{i}", f"Oat {i} Biscuits", "Marlowe Farm", "Food > Biscuits"] for i in numbers)


def materialise(warehouse: Warehouse, day: str) -> dg.ExecuteInProcessResult:
    assets = [*snapshot_assets(warehouse.settings), *cleaning_assets(warehouse.settings)]
    return dg.materialize(
        assets,
        partition_key=day,
        resources={"warehouse": warehouse},
        instance=dg.DagsterInstance.ephemeral(),
        raise_on_error=False,
    )


def cleanings(warehouse: Warehouse, day: str) -> dict[str, str | None]:
    """Product text hash to why it fell back, None where it did not."""
    rows = warehouse.tables.arrow(SNAPSHOT_CLEANINGS, snapshot=day).to_pylist()
    return {row["text_hash"]: row["reason"] if row["fallback"] else None for row in rows}


def metadata(result: dg.ExecuteInProcessResult) -> dict:
    [event] = result.asset_materializations_for_node("cleaned_attributes")
    return {name: value.value for name, value in event.metadata.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nights")
    for day, numbers in zip(DAYS, (range(20), range(30), range(30), range(31)), strict=False):
        catalogue(folder, day, numbers)
    return folder


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def told():
    """Address of a webhook, and the alerts that it got."""
    with webhook() as (address, got, _):
        yield address, got


@pytest.fixture(scope="module")
def warehouse(folder, server, told, spark):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMINI_API_KEY", KEY)
        patch.setenv("SID_ALERTS__WEBHOOK", told[0])
        patch.setenv("SID_SETTINGS", str(folder / "sid.toml"))
        (folder / "sid.toml").write_text(SETTINGS.replace("[cleaning]", f'[cleaning]\nbase_url = "{server.url}"'))
        yield Warehouse(load_settings())


# One story, in order.


def test_a_night_is_cleaned_and_accounted_for(warehouse, server):
    result = materialise(warehouse, DAYS[0])
    assert result.success
    assert set(cleanings(warehouse, DAYS[0]).values()) == {None} and server.calls["generate"] == 20
    shown = metadata(result)
    assert shown["cleaned now"] == 20 and shown["cache hit share"] == 0.0 and shown["fallback texts"] == 0
    calls = warehouse.tables.arrow(CLEANING_CALLS).to_pylist()
    assert len(calls) == 20 and all(json.loads(call["raw"])["products"] for call in calls)
    assert shown["cost of this run, USD"] == pytest.approx(sum(call["cost"] for call in calls), abs=1e-6)
    assert shown["asked again alone"] == 0
    assert "gemini-test-001" in shown["cost by day"] and "Oat" in shown["before and after"]


def test_an_unchanged_night_asks_for_nothing(warehouse, server):
    before = server.calls["generate"]
    assert metadata(materialise(warehouse, DAYS[0]))["unchanged"] is True
    assert server.calls["generate"] == before


def test_in_an_outage_what_was_cleaned_stays_and_new_texts_fall_back(warehouse, server):
    server.rates = {"503": 1.0}
    result = materialise(warehouse, DAYS[1])
    server.rates = {}
    assert result.success, "the night goes on"
    reasons = cleanings(warehouse, DAYS[1])
    assert len(reasons) == 30 and sum(reason is not None for reason in reasons.values()) == 10
    assert all("503" in reason for reason in reasons.values() if reason)
    [check] = [e for e in result.get_asset_check_evaluations() if e.check_name == "provider"]
    assert not check.passed and "tried again the next night" in check.description
    rules = warehouse.receipts.need("cleaned_attributes", DAYS[1])
    assert rules.facts["to_retry"] == 10


def test_the_next_night_tries_again_what_fell_back(warehouse, server):
    before = server.calls["generate"]
    assert materialise(warehouse, DAYS[2]).success
    assert server.calls["generate"] - before == 10, "and nothing that was cleaned before"
    assert set(cleanings(warehouse, DAYS[2]).values()) == {None}


def test_a_rerun_of_the_night_tries_again_too(warehouse, server):
    before = server.calls["generate"]
    assert materialise(warehouse, DAYS[1]).success
    assert server.calls["generate"] == before, "the later night cleaned them"
    assert set(cleanings(warehouse, DAYS[1]).values()) == {None}


def test_without_a_key_nothing_is_called_and_a_person_is_told(warehouse, server, told, monkeypatch):
    assert not told[1], "an outage mends itself"
    monkeypatch.delenv("GEMINI_API_KEY")
    before = sum(server.calls.values())
    result = materialise(warehouse, DAYS[3])
    assert result.success and sum(server.calls.values()) == before
    [check] = [e for e in result.get_asset_check_evaluations() if e.check_name == "provider"]
    assert "GEMINI_API_KEY is not set" in check.description
    [alert] = told[1]
    assert alert["kind"] == "cleaning" and "GEMINI_API_KEY is not set" in json.dumps(alert)
    assert [reason for reason in cleanings(warehouse, DAYS[3]).values() if reason]


def test_a_refused_text_is_not_asked_for_on_a_third_call(warehouse, server):
    server.fault("refused", times=100, match="Oat 30 ")
    for _ in range(3):
        assert materialise(warehouse, DAYS[3]).success
    server.faults.clear()
    assert server.asked["Oat 30 Biscuits"] == 2
    reasons = [reason for reason in cleanings(warehouse, DAYS[3]).values() if reason]
    assert len(reasons) == 1
    assert warehouse.receipts.need("cleaned_attributes", DAYS[3]).facts["to_retry"] == 0


def test_no_table_receipt_or_spool_holds_the_key(warehouse, folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_the_commands_tell_the_price_and_the_doubtful_rows(warehouse, server):
    done = CliRunner().invoke(cli.main, ["clean", "--estimate", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert (told["products"], told["already_cleaned"], told["to_clean"]) == (31, 30, 1)
    assert told["price_usd"] == pytest.approx((told["input_tokens"] + 2 * told["output_tokens"]) / 1e6, abs=1e-4)
    done = CliRunner().invoke(cli.main, ["clean", "--text", "Vegan Oat Biscuits\nCrunchy.", "--json"])
    record = json.loads(done.output)
    assert record["raw"] == "Vegan Oat Biscuits\nCrunchy." and record["product_type"] == "biscuits"
    assert record["dietary_tags"] == ["vegan"] and record["source"] == "gemini"
    done = CliRunner().invoke(cli.main, ["clean", "--review", "--json"])
    assert done.exit_code == 0, done.output


def test_an_unchanged_night_takes_over_its_fallbacks_and_asks_nobody(warehouse, server, folder):
    catalogue(folder, DAYS[4], range(31))
    before = sum(server.calls.values())
    shown = metadata(materialise(warehouse, DAYS[4]))
    assert sum(server.calls.values()) == before and shown["cleaned now"] == 0
    assert shown["cost of this run, USD"] == 0.0 and "gemini-test-001" in shown["cost by day"]
    assert cleanings(warehouse, DAYS[4]) == cleanings(warehouse, DAYS[3])


def test_texts_given_up_that_are_gone_do_not_count_for_those_that_fell_back(warehouse, server, folder):
    catalogue(folder, DAYS[5], [*range(30), 40])  # without the text that was refused, with a new one
    server.rates = {"503": 1.0}
    assert materialise(warehouse, DAYS[5]).success
    server.rates = {}
    assert warehouse.receipts.need("cleaned_attributes", DAYS[5]).facts["to_retry"] == 1
    catalogue(folder, DAYS[6], [*range(30), 40])
    assert metadata(materialise(warehouse, DAYS[6]))["cleaned now"] == 1, "asked again although nothing changed"


def test_a_product_that_was_gone_for_longer_than_days_are_kept_is_not_paid_for_again(warehouse, server):
    few = warehouse.settings.model_copy(update={"retention": RetentionSettings(snapshots=1)})
    shop = Warehouse(few)
    catalogue(few.root, DAYS[7], range(5, 30))  # without the first five
    assert materialise(shop, DAYS[7]).success
    going = plan(shop)
    assert {removal.name for removal in going.removals if removal.kind == "day"} == set(DAYS[:7])
    take_away(shop, going)
    assert shop.tables.slices(SNAPSHOT_CLEANINGS) == [(DAYS[7],)]
    before = server.calls["generate"]
    catalogue(few.root, DAYS[8], range(30))
    assert materialise(shop, DAYS[8]).success and server.calls["generate"] == before
    assert set(cleanings(shop, DAYS[8]).values()) == {None}


KILLED = """
import sys
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.settings import load_settings
from sid_pipeline_tests.spark.test_llm_cleaning import materialise
result = materialise(Warehouse(load_settings()), sys.argv[1])
print("success", result.success)
"""


def test_a_kill_at_any_time_repays_at_most_the_requests_in_flight(tmp_path):
    """A real process, killed with SIGKILL while requests are in flight, three times; the server counts."""
    number, in_flight = 400, 8
    catalogue(tmp_path, DAYS[0], range(number))
    with running(delay=0.15) as server:
        (tmp_path / "sid.toml").write_text(SETTINGS.replace("[cleaning]", f'[cleaning]\nbase_url = "{server.url}"'))
        env = {**os.environ, "SID_SETTINGS": str(tmp_path / "sid.toml"), "GEMINI_API_KEY": KEY, "PYTHONPATH": ROOT}
        kills = 0
        while True:
            process = subprocess.Popen([sys.executable, "-c", KILLED, DAYS[0]], env=env, start_new_session=True)
            goal = sum(server.asked.values()) + 100
            while process.poll() is None and (kills == 3 or sum(server.asked.values()) < goal):
                time.sleep(0.01)
            if process.poll() is not None:
                assert process.returncode == 0
                break
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.5)  # requests in flight end at the server
            kills += 1
        paid = sum(server.asked.values())
    assert kills == 3
    assert number <= paid <= number + kills * in_flight
    warehouse = Warehouse(load_settings(tmp_path / "sid.toml", env={}))
    rows = warehouse.tables.arrow(CLEANED_ATTRIBUTES, ["text_hash", "source"]).to_pylist()
    assert len(rows) == len({row["text_hash"] for row in rows}) == number
    assert {row["source"] for row in rows} == {"gemini"}
    calls = warehouse.tables.arrow(CLEANING_CALLS, ["call_id"])["call_id"].to_pylist()
    assert len(calls) == len(set(calls)) == number
