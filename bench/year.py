"""Simulated nights: the product's own jobs over a catalogue that trades, with faults drawn from a seed.

    python bench/year.py FOLDER [--nights 60] [--products 5400] [--seed 1] [--faults NAME,NAME,...]

Every night the shop delivers (`year_catalogue.py`), the product's schedule and sensors are asked and what they ask
for is run (`year_runs.py`, one process that lives through all nights), a fault may strike, and then `year_check.py`,
which shares no code with the product, must find nothing to object to. Cleaning asks the local server of the tests
through the real Gemini client. A reader follows what is live without rest. Stop it when you like: the same command
goes on with the next night. `FOLDER/nights.jsonl` has a line a night; the last lines printed are the summary. Each
night that is over has had its chance: what failed was run again, as a person or production's run retries do.

The daemon itself is not part of it, since its clock cannot be set; the process that stands for it is killed instead
between the snapshot's run and the refresh that follows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.year_catalogue import START, Shop, day_of  # noqa: E402
from bench.year_check import Checker, Night  # noqa: E402
from sid_pipeline_tests.llm_server import KEY, LlmServer, running  # noqa: E402

HERE = Path(__file__).resolve().parent
IN_FLIGHT = 16
DISK_GIB = 8
NIGHT_TIMEOUT = 3600  # a machine may be busy
SETTINGS = """
state_dir = "disk/.sid"

[source]
products = "catalogue/{{snapshot}}/products.csv.gz"
offers = "catalogue/{{snapshot}}/offers.csv.gz"

[snapshots]
start = {start}
timezone = "Europe/Berlin"

[taxonomy]
source = "taxonomy.csv"

[cleaning]
provider = "gemini"
model = "gemini-2.5-flash-lite"
batch = "never"
in_flight = {in_flight}
timeout_seconds = 3
deadline_seconds = 8
outage_seconds = 6

[training]
codebook_size = 64
latent_dim = 32
steps = 40
batch_size = 512
min_usage = 0.2
threads = 1

[embedders.esci]
max_tokens = 32

[embedders.gemma]
max_tokens = 32

[embedding]
workers = 1

[report]
sample = 1500

# Few, so that state levels off within the nights that are run; a day of history is a minute, see year_runs.py.
[retention]
snapshots = 14
history_days = 1

# A vocabulary this small would often be blocked by its own noise, which is not what is looked at here.
[publication]
max_usage_drop = 0.5
max_collision_rise = 0.5
max_near_duplicate_drop = 0.5
"""
FAULTS = (
    "kill_run",
    "kill_spark",
    "kill_between_runs",
    "full_disk",
    "llm_down",
    "llm_slow",
    "llm_lying",
    "llm_malformed",
    "late",
    "truncated",
    "twice",
    "missing",
    "two_at_once",
    "clock",
)
QUIET, CALM = "quiet", "none"
BLOCK = 24  # nights in which every fault strikes once
MINOR_EVERY, MAJOR_EVERY, RETENTION_EVERY = 9, 26, 7
PROMOTED_AFTER, RETIRED_AFTER = 2, 5  # nights after a major change


class Worker:
    """A process of `year_runs.py`, in a session of its own."""

    def __init__(self, folder: Path, url: str, clock: float = 0.0) -> None:
        mine, its = os.pipe()
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SID_", "DAGSTER_"))},
            "SID_CLEANING__BASE_URL": url,
            "GEMINI_API_KEY": KEY,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, str(HERE / "year_runs.py"), str(folder / "sid.toml"), str(its)]
        with (folder / "runs.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--clock-offset", str(clock)], stdin=subprocess.PIPE, stdout=log, stderr=log, env=env,
                pass_fds=[its], start_new_session=True,
            )  # fmt: skip
        os.close(its)
        self._answers = os.fdopen(mine, "rb", buffering=0)
        self._rest = b""
        self.ready = False

    def send(self, **command: Any) -> None:
        """Ask for something without waiting for it."""
        assert self.process.stdin is not None
        if not self.ready:
            assert self.answer(), "the process did not come up; see runs.log"
            self.ready = True
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, timeout: float = NIGHT_TIMEOUT) -> dict[str, Any] | None:
        """The answer to what was asked; None when the process died."""
        until = time.monotonic() + timeout
        while b"\n" not in self._rest:
            if not select.select([self._answers], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError(f"process {self.process.pid} did not answer for {timeout:.0f} s")
            block = os.read(self._answers.fileno(), 1 << 20)
            if not block:
                return None
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def ask(self, **command: Any) -> dict[str, Any]:
        """Ask and wait."""
        self.send(**command)
        found = self.answer()
        assert found is not None, "the process that lives through all nights died; see runs.log"
        return found

    def session(self) -> dict[int, str]:
        """Processes of its session and their commands."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    if int(fields[3]) == self.process.pid and fields[0] != "Z":
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
                except OSError:
                    continue
        return found

    def kill(self) -> None:
        self.process.kill()

    def end(self) -> list[str]:
        """Let it end, or wait until it is dead; what it left behind after half a minute is named and ended."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._answers.close()
        until = time.monotonic() + 30
        while (left := self.session()) and time.monotonic() < until:
            time.sleep(0.5)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return list(left.values())

    def figures(self) -> dict[str, Any]:
        """Resident memory of Python and of its JVM in MiB, open files and processes."""
        processes = self.session()
        java = [pid for pid, command in processes.items() if "java" in command.split(" ")[0]]
        return {
            "python_mib": resident(self.process.pid),
            "jvm_mib": sum(resident(pid) for pid in java),
            "open_files": len(os.listdir(f"/proc/{self.process.pid}/fd")),
            "jvm_open_files": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in java),
            "processes": len(processes),
        }


def resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) // 1024 if found else 0


@dataclass
class Bench:
    """Everything of one simulation."""

    folder: Path
    seed: int
    server: LlmServer
    shop: Shop
    worker: Worker
    chosen: list[str] | None = None
    has_disk: bool = False
    typical: float = 20.0
    left_behind: list[str] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "disk" / ".sid"

    # A night

    def night(self, number: int) -> dict[str, Any]:
        """One night, from the delivery to the checker's word."""
        draw = random.Random(f"{self.seed}/fault/{number}")
        kind, day = self.kind(number), day_of(number)
        if self.shop.night < number:
            self.shop.next_day(quiet=kind == QUIET)
            self._taxonomy(number)
            self.shop.save(self.folder / "shop.json")
        self.shop.write(self.folder)
        self.shop.write_taxonomy(self.folder)
        started, answers = time.monotonic(), self._lines("llm.jsonl")
        record: dict[str, Any] = {"night": number, "day": day, "kind": kind, "runs": []}
        if number == 0:
            self._arrive(day)
            self._take(record, self.worker.ask(do="tick", day=day))
            self._take(record, self.worker.ask(do="run", job="release_build", partition="r1"))
        else:
            getattr(self, f"_{kind}")(day, draw, record)
        self._after(number, record)
        up_to_date = kind != "missing"
        record["seconds"] = round(time.monotonic() - started, 1)
        checker = Checker(self.folder, self.state, self.folder / "memory.json")
        record["violations"] = [
            *checker.check(Night(day, up_to_date, switched=bool(record.get("switched")))),
            *self._reader_faults(number),
        ]
        record["checked"] = checker.seen
        record["llm_answers"] = self._lines("llm.jsonl") - answers
        record["state"] = size_of(self.state)
        record["process"] = self.worker.figures()
        record["left_behind"], self.left_behind = self.left_behind, []
        if not record["process"]["jvm_mib"]:
            # Production gives every run a process of its own, so a JVM that died costs no later night.
            record["errors"] = [*record.get("errors", []), "Spark's JVM died without being meant to"]
            self.worker.end()
            self.worker = Worker(self.folder, self.server.url)
        return record

    def kind(self, number: int) -> str:
        """What happens in a night: every fault once in a block of nights, in an order of its own."""
        if number == 0:
            return CALM
        if self.chosen is not None:
            return self.chosen[(number - 1) % len(self.chosen)]
        block, place = divmod(number - 1, BLOCK)
        kinds = [*FAULTS, *[QUIET] * 3, *[CALM] * (BLOCK - len(FAULTS) - 3)]
        random.Random(f"{self.seed}/block/{block}").shuffle(kinds)
        return kinds[place]

    def _taxonomy(self, number: int) -> None:
        if self.chosen is None and number % MAJOR_EVERY == MAJOR_EVERY // 2:
            self.shop.regroup()
        elif number % MINOR_EVERY == 3:
            self.shop.rename_a_leaf()

    def _after(self, number: int, record: dict[str, Any]) -> None:
        """What else happens in a night: the taxonomy is watched, people promote and retire, what nobody needs goes."""
        looked = self.worker.ask(do="sensor", name="taxonomy_watch", job="release_build")
        self._take(record, looked)
        releases = self.folder / "releases.json"
        known = json.loads(releases.read_text()) if releases.is_file() else {"live": "r1", "next": None, "old": []}
        for run in looked["runs"]:
            if run["job"] == "release_build" and run["ok"]:
                known["next"] = [run["partition"], number + PROMOTED_AFTER]
        if known["next"] and number >= known["next"][1]:
            release = known["next"][0]
            config = {"promote_release": {"config": {"by": "Ada", "reason": "the new tree", "release": release}}}
            promoted = self.worker.ask(do="run", job="promote", ops=config)
            self._take(record, promoted)
            record["switched"] = release
            known = {"live": release, "next": None, "old": [*known["old"], [known["live"], number + RETIRED_AFTER]]}
        for release, when in [entry for entry in known["old"] if number >= entry[1]]:
            record["retired"] = self.worker.ask(do="retire", release=release).get("error") or release
            known["old"].remove([release, when])
        releases.write_text(json.dumps(known))
        if number % RETENTION_EVERY == RETENTION_EVERY - 1:
            self._take(record, self.worker.ask(do="run", job="retention"))

    # Faults

    def _none(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        self._arrive(day)
        answer = self.worker.ask(do="tick", day=day)
        self._take(record, answer)
        self.typical = 0.5 * self.typical + 0.5 * answer["seconds"]

    def _quiet(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        """A new day whose files are the last one's, but for the broken rows."""
        self._arrive(day)
        answer = self.worker.ask(do="tick", day=day)
        self._take(record, answer)
        record["unchanged_seconds"] = answer["seconds"]

    def _twice(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        self._none(day, draw, record)
        again = self.worker.ask(do="tick", day=day)
        self._take(record, again)
        record["again_seconds"] = again["seconds"]

    def _late(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        self._expect_skip(self.worker.ask(do="tick", day=day), record)
        self._arrive(day)
        self._take(record, self.worker.ask(do="sensor", name="late_nights", job="snapshot_refresh"))

    def _missing(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        self._expect_skip(self.worker.ask(do="tick", day=day), record)

    def _truncated(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        self._arrive(day)
        file = self.folder / "catalogue" / day / "products.csv.gz"
        whole = file.read_bytes()
        file.write_bytes(whole[: int(len(whole) * draw.uniform(0.05, 0.95))])
        self._expect_failure(self.worker.ask(do="tick", day=day), "gzip", record)
        file.write_bytes(whole)
        self._take(record, self.worker.ask(do="run", job="snapshot_refresh", partition=day))

    def _again(self, victim: Worker, day: str, record: dict[str, Any]) -> None:
        """After a process was lost: what is left of it goes, and the night is run again."""
        self.left_behind += victim.end()
        self.worker.ask(do="bury")
        self._take(record, self.worker.ask(do="tick", day=day))

    def _kill_run(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        """SIGKILL to a run's process at a random moment; then the night is run again."""
        self._arrive(day)
        victim = Worker(self.folder, self.server.url)
        victim.send(do="tick", day=day)
        record["killed_after"] = round(draw.uniform(0.5, self.typical + 12), 1)
        time.sleep(record["killed_after"])
        self._interrupted()
        victim.kill()
        self._again(victim, day, record)

    def _kill_spark(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        """SIGKILL to the JVM or one of the Python workers of a run, at a random moment."""
        self._arrive(day)
        victim = Worker(self.folder, self.server.url)
        victim.send(do="tick", day=day)
        wanted, until = draw.choice(("java", "pyspark")), time.monotonic() + draw.uniform(8, self.typical + 15)
        while time.monotonic() < until + 60:
            found = [
                pid for pid, command in victim.session().items() if wanted in command and pid != victim.process.pid
            ]
            if found and time.monotonic() > until:
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(found), signal.SIGKILL)
                record["killed"] = wanted
                break
            if select.select([victim._answers], [], [], 0.2)[0]:
                break
        self._interrupted()
        answer = victim.answer()
        record["victim_failed"] = [f[:200] for run in (answer or {"runs": []})["runs"] for f in run["failures"]]
        self._again(victim, day, record)

    def _kill_between_runs(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        """What stands for the daemon dies after the snapshot's run, before the refresh that follows it."""
        self._arrive(day)
        victim = Worker(self.folder, self.server.url)
        victim.send(do="run", job="snapshot_refresh", partition=day, follow=False)
        victim.answer()
        victim.kill()
        self._again(victim, day, record)

    def _full_disk(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        """Almost no room is left on the disk of the state; then there is again."""
        self._arrive(day)
        if self.has_disk:
            ballast = self.folder / "disk" / "ballast"
            room = int(draw.uniform(0, 3) * (1 << 20))
            free = shutil.disk_usage(self.folder / "disk").free
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, free - room - (1 << 20)))
            record["room"] = shutil.disk_usage(self.folder / "disk").free
            self._interrupted()
            answer = self.worker.ask(do="tick", day=day)
            record["victim_failed"] = [f[:300] for run in answer["runs"] for f in run["failures"]]
            record["victim_error"] = (answer.get("error") or "")[-300:]
            ballast.unlink()
        self._take(record, self.worker.ask(do="tick", day=day))

    def _llm_down(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        with self._model(rates={"503": 1.0}):
            self._none(day, draw, record)

    def _llm_slow(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        with self._model(rates={"slow": 0.3}, delay=0.2):
            self._none(day, draw, record)

    def _llm_lying(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        with self._model(answer=lie, gullible=True):
            self._none(day, draw, record)

    def _llm_malformed(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        with self._model(rates={"malformed": 0.3, "truncated": 0.1, "429": 0.2, "drop": 0.1, "refused": 0.05}):
            self._none(day, draw, record)

    def _two_at_once(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        self._arrive(day)
        other = Worker(self.folder, self.server.url)
        other.send(do="tick", day=day)
        time.sleep(draw.uniform(0, 3))
        answer = self.worker.ask(do="tick", day=day)
        beside = other.answer()
        self.left_behind += other.end()
        self._take(record, answer)
        assert beside is not None
        self._take(record, beside)

    def _clock(self, day: str, draw: random.Random, record: dict[str, Any]) -> None:
        """The night is run by a process whose clock is some hours off."""
        self._arrive(day)
        record["clock_hours"] = draw.choice((-26.0, -1.0, 1.0, 30.0))
        other = Worker(self.folder, self.server.url, record["clock_hours"] * 3600)
        self._take(record, other.ask(do="tick", day=day))
        self.left_behind += other.end()

    # Helpers

    def _arrive(self, day: str) -> None:
        target = self.folder / "catalogue" / day
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted((self.folder / "incoming" / day).iterdir(), reverse=True):  # offers come last
            shutil.copy2(file, target / f".{file.name}")
            (target / f".{file.name}").replace(target / file.name)

    def _take(self, record: dict[str, Any], answer: dict[str, Any]) -> None:
        """Note the runs; one that failed is a finding, unless the night says otherwise."""
        if answer.get("error"):
            record.setdefault("errors", []).append(answer["error"])
        record["runs"] += answer["runs"]

    def _expect_skip(self, answer: dict[str, Any], record: dict[str, Any]) -> None:
        self._take(record, answer)
        if answer["runs"] or not answer["skipped"]:
            record.setdefault("errors", []).append(f"the schedule did not wait for its input: {answer}")

    def _expect_failure(self, answer: dict[str, Any], words: str, record: dict[str, Any]) -> None:
        record["expected_failure"] = [failure for run in answer["runs"] for failure in run["failures"]]
        if not any(words in failure for failure in record["expected_failure"]):
            record.setdefault("errors", []).append(f"a failure that speaks of {words!r} was expected: {answer}")

    def _interrupted(self) -> None:
        with (self.folder / "interruptions.jsonl").open("a") as file:
            file.write(json.dumps({"in_flight": IN_FLIGHT}) + "\n")

    @contextmanager
    def _model(self, **behaviour: Any) -> Iterator[None]:
        usual = {name: getattr(self.server, name) for name in behaviour}
        vars(self.server).update(behaviour)
        try:
            yield
        finally:
            vars(self.server).update(usual)

    def _lines(self, name: str) -> int:
        path = self.folder / name
        return len(path.read_text().splitlines()) if path.is_file() else 0

    def _reader_faults(self, number: int) -> list[str]:
        """What the reader saw since the last night."""
        path = self.folder / "reader.jsonl"
        faults = [json.loads(line)["fault"] for line in path.read_text().splitlines()] if path.is_file() else []
        path.unlink(missing_ok=True)
        return [f"reader: {fault}" for fault in faults]


def lie(product: dict[str, Any]) -> dict[str, Any]:
    """An answer of the right shape with nothing true in it."""
    return {
        "id": product["id"], "product_type": "lawn mower", "brand": "Falsehood & Co", "key_ingredients": ["plutonium"],
        "dietary_tags": ["carnivore"], "tags": ["haunted"], "format": "gaseous", "size": None, "audience": "werewolves",
    }  # fmt: skip


def size_of(state: Path) -> dict[str, Any]:
    """MiB and files below the state folder, by part; apart from them the logs of tables, which Delta keeps 30 days."""
    parts: dict[str, list[int]] = {}
    for path in state.rglob("*"):
        try:
            if path.is_file():
                name = "logs" if "_delta_log" in path.parts else path.relative_to(state).parts[0]
                part = parts.setdefault(name, [0, 0])
                part[0] += path.stat().st_size
                part[1] += 1
        except FileNotFoundError:
            continue
    mib = {name: [round(size / (1 << 20), 1), files] for name, (size, files) in sorted(parts.items())}
    total = [sum(size for size, _ in parts.values()), sum(files for _, files in parts.values())]
    return {"mib": round(total[0] / (1 << 20), 1), "files": total[1], "parts": mib}


def mount(folder: Path) -> bool:
    """A disk of its own for the state, so that it can be full; False where this user may not mount one."""
    disk = folder / "disk"
    disk.mkdir(parents=True, exist_ok=True)
    if os.path.ismount(disk):
        return True
    image = folder / "disk.img"
    try:
        if not image.is_file():
            with image.open("wb") as file:
                file.truncate(DISK_GIB << 30)
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no disk of its own for the state, so it is never full: {error}", file=sys.stderr)
        return False
    return True


def faulty(record: dict[str, Any]) -> list[str]:
    """What is wrong with a night: violations, errors, runs that failed and should not have, processes left."""
    failed = [f"{run['job']} failed: {run['failures']}" for run in record["runs"] if not run["ok"]]
    left = [f"left behind: {command}" for command in record["left_behind"]]
    return [*record["violations"], *record.get("errors", []), *failed, *left]


def summary(records: list[dict[str, Any]]) -> str:
    """The figures of all nights."""
    kinds = Counter(record["kind"] for record in records)
    bad = [record for record in records if faulty(record)]
    quiet = [record["unchanged_seconds"] for record in records if "unchanged_seconds" in record]
    again = [record["again_seconds"] for record in records if "again_seconds" in record]
    runs = [run for record in records for run in record["runs"]]
    lines = [
        f"{len(records)} nights, {records[0]['day']} to {records[-1]['day']}: {len(bad)} with a violation",
        f"kinds: {', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))}",
        f"runs: {len(runs)}, of which release_build {sum(run['job'] == 'release_build' for run in runs)}, "
        f"taxonomy_revision {sum(run['job'] == 'taxonomy_revision' for run in runs)}",
        f"switches: {sum('switched' in record for record in records)}",
        f"seconds a night, median: {statistics.median(record['seconds'] for record in records):.1f}",
    ]
    if quiet:
        lines.append(f"a day without changes: {min(quiet):.1f} to {max(quiet):.1f} s ({len(quiet)})")
    if again:
        lines.append(f"the same day again: {min(again):.1f} to {max(again):.1f} s ({len(again)})")
    for record in records[:: max(1, len(records) // 6)] + records[-1:]:
        process, state = record["process"], record["state"]
        lines.append(
            f"night {record['night']}: state {state['mib']} MiB in {state['files']} files {state['parts']}; Python "
            f"{process['python_mib']} MiB, JVM {process['jvm_mib']} MiB, open files {process['open_files']} + "
            f"{process['jvm_open_files']}, processes {process['processes']}"
        )
    for record in bad:
        lines.append(f"night {record['night']} ({record['kind']}): {faulty(record)[:5]}")
    return "\n".join(lines)


def simulate(folder: Path, nights: int, products: int, seed: int, chosen: list[str] | None = None) -> list[dict]:
    """Run the nights that are still missing and return the records of all."""
    folder = folder.resolve()
    has_disk = mount(folder)
    done = folder / "nights.jsonl"
    records = [json.loads(line) for line in done.read_text().splitlines()] if done.is_file() else []
    if len(records) >= nights:
        return records
    (folder / "sid.toml").write_text(SETTINGS.format(start=START, in_flight=IN_FLIGHT))
    kept = folder / "shop.json"
    shop = Shop.load(kept) if kept.is_file() else Shop.open(seed, products)
    (folder / "reader.jsonl").unlink(missing_ok=True)

    def note(entry: dict[str, Any]) -> None:
        with (folder / "llm.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    with running(keep_prompts=False, log=note) as server:
        reader = subprocess.Popen(
            [
                sys.executable,
                str(HERE / "year_check.py"),
                "read",
                str(folder / "disk" / ".sid"),
                str(folder / "reader.jsonl"),
            ]
        )
        worker = Worker(folder, server.url)
        bench = Bench(folder, seed, server, shop, worker, chosen, has_disk)
        # How long a night takes on this machine, so that a kill strikes anywhere in it.
        usual = [sum(run["seconds"] for run in record["runs"][:2]) for record in records[1:]]
        bench.typical = statistics.median(usual) if usual else bench.typical
        try:
            for number in range(len(records), nights):
                record = bench.night(number)
                records.append(record)
                with done.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                wrong = faulty(record)
                told = f"{number} {record['day']} {record['kind']}: {record['seconds']} s, {'; '.join(wrong) or 'ok'}"
                print(told[:900], flush=True)
            assert reader.poll() is None, "the reader died"
        finally:
            reader.kill()
            bench.worker.end()
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nights", type=int, default=60)
    parser.add_argument("--products", type=int, default=5400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", help="kinds of nights in turn, instead of drawn ones")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; the same command goes on"))
    chosen = arguments.faults.split(",") if arguments.faults else None
    records = simulate(arguments.folder, arguments.nights, arguments.products, arguments.seed, chosen)
    print(summary(records))
    sys.exit(any(faulty(record) for record in records))


if __name__ == "__main__":
    main()
