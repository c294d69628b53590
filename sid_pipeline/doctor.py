"""`sid doctor`: is this machine ready? Each finding is ok, or says how to mend it."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sid_pipeline.files import to_json
from sid_pipeline.settings import Settings, SettingsError, load_settings

PACKAGES = (
    "dagster",
    "dagster-webserver",
    "torch",
    "pyspark",
    "delta-spark",
    "deltalake",
    "sentence-transformers",
)
MIN_JAVA = 17
MIN_FREE_GB = 5


class JavaError(RuntimeError):
    """No usable Java runtime; the message says what to install."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    name: str
    ok: bool
    text: str


def find_java() -> str:
    """The Java that Spark will use.

    Raises:
        JavaError: there is none of version 17 or newer.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if not java or not Path(java).is_file():
        raise JavaError("no java found: install a Java 17 runtime (openjdk-17-jre-headless) or set JAVA_HOME")
    told = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version.group(1)) < MIN_JAVA:
        found = version.group(1) if version else "unknown"
        raise JavaError(
            f"{java} is version {found}; Spark needs Java {MIN_JAVA} or newer: install one or set JAVA_HOME"
        )
    return java


def examine() -> list[Finding]:
    """All findings. A broken settings file is a finding too; what depends on it is then left out."""
    findings = [_python(), _packages(), _guarded("java", find_java), _guarded("jars", _jars), _classes(), _device()]
    try:
        settings = load_settings()
    except SettingsError as error:
        return [*findings, Finding("settings", False, str(error))]
    findings += [_disk(settings.state), *_weights(settings), _sources(settings)]
    shown = to_json(settings.model_dump(mode="json", exclude_defaults=False))
    return [*findings, Finding("settings", True, f"as resolved, from {settings.root}:\n{shown}")]


def _guarded(name: str, look: Callable[[], str]) -> Finding:
    from sid_pipeline.resources.jars import JarError

    try:
        return Finding(name, True, look())
    except (JavaError, JarError) as error:
        return Finding(name, False, str(error))


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = (3, 10) <= sys.version_info[:2] <= (3, 13)
    return Finding("python", ok, version if ok else f"{version}: use Python 3.10 to 3.13 and run `make setup` again")


def _packages() -> Finding:
    versions, absent = [], []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    if absent:
        return Finding("packages", False, f"not installed: {', '.join(absent)}: run `make setup`")
    return Finding("packages", True, ", ".join(versions))


def _jars() -> str:
    from sid_pipeline.resources.jars import cache_dir, delta_jars

    return f"{len(delta_jars())} Delta JARs in {cache_dir()}"


def _classes() -> Finding:
    from sid_pipeline.resources.class_archive import archive_path

    path = archive_path()
    if path is not None and path.is_file():
        return Finding("classes", True, f"Spark's classes are archived in {path}")
    return Finding("classes", True, "Spark's classes are not archived: it starts some seconds later; see `sid setup`")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("device", True, f"cuda: {torch.cuda.get_device_name(0)}")
    return Finding("device", True, f"cpu, {torch.get_num_threads()} threads (no CUDA device; training works, slower)")


def _disk(state: Path) -> Finding:
    folder = next(path for path in [state, *state.parents] if path.is_dir())
    free = shutil.disk_usage(folder).free / 1e9
    if not os.access(folder, os.W_OK):
        return Finding("disk", False, f"{folder} is not writable: set state_dir to a folder that is")
    mend = (
        ""
        if free >= MIN_FREE_GB
        else f": free {MIN_FREE_GB} GB or move the state to another disk and set state_dir to its place"
    )
    return Finding("disk", free >= MIN_FREE_GB, f"{free:.0f} GB free for {state}{mend}")


def _weights(settings: Settings) -> list[Finding]:
    from sid_pipeline.embedding.model import ModelError, embedder_id, resolve_model

    findings = []
    for name, embedder in settings.embedders.items():
        if embedder.vectors is not None:
            findings.append(Finding("weights", True, f"{name}: vectors are supplied at {embedder.vectors}"))
            continue
        try:
            local = Path(resolve_model(embedder.model, settings.root)).is_dir()
            where = "on disk" if local else "from the Hugging Face hub at first use (a gated model needs HF_TOKEN)"
            findings.append(Finding("weights", True, f"{name}: {embedder_id(embedder, settings.root)}, {where}"))
        except (ModelError, ValueError) as error:
            findings.append(Finding("weights", False, f"{name}: {error}"))
    return findings


def _sources(settings: Settings) -> Finding:
    pattern = settings.location(settings.source.products)
    if "://" in pattern:
        return Finding("source", True, f"{pattern} (looked at when it is read)")
    found = sorted(Path("/").glob(pattern.replace("{snapshot}", "*").lstrip("/")))
    if not found:
        return Finding("source", False, f"nothing lies at {pattern}: set source.products")
    return Finding("source", True, f"{len(found)} file(s) at {pattern}")
