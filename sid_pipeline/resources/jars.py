"""Delta's two JARs: where they are cached, how they are fetched once, and that they are what was tried.

The fetch uses the Ivy that PySpark ships, so the repository is whatever Ivy is configured with; set
`SID_CACHE_DIR` to move the cache, and copy the two files there on a machine without network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from sid_pipeline.files import file_sha256

DELTA_VERSION = "4.4.0"
# SHA-256 of the artefacts that the pipeline was tested with.
JARS = {
    f"delta-spark_4.2_2.13-{DELTA_VERSION}.jar": "27d4fd8b1f879535c573ed1c718177d6a27f24d3e626ba02e216369725721ead",
    f"delta-storage-{DELTA_VERSION}.jar": "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc",
}


class JarError(RuntimeError):
    """The JARs are missing, cannot be fetched or are not what was tested."""


def cache_dir() -> Path:
    """Folder of the cached JARs, shared by all checkouts of a user."""
    base = os.environ.get("SID_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(base) / "sid_pipeline" / "jars"


def delta_jars() -> list[str]:
    """Paths of the cached JARs.

    Raises:
        JarError: one is missing or damaged; the message says how to fetch it.
    """
    folder = cache_dir()
    for name, digest in JARS.items():
        path = folder / name
        if not path.is_file():
            raise JarError(f"{path} is missing: run `make setup` (or `sid setup`) once with network")
        if file_sha256(path) != digest:
            raise JarError(f"{path} is damaged or another build: delete it and run `make setup` again")
    return [str(folder / name) for name in JARS]


def fetch(java: str = "java") -> list[str]:
    """Fetch what is missing into the cache and return the paths. A complete cache needs no network.

    Raises:
        JarError: Ivy could not resolve an artefact, or resolved another build.
    """
    import pyspark

    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    ivy = next((Path(pyspark.__file__).parent / "jars").glob("ivy-*.jar"), None)
    if ivy is None:
        raise JarError("the installed pyspark ships no ivy JAR; install the pyspark version of the lock file")
    for name, digest in JARS.items():
        target = folder / name
        if target.is_file() and file_sha256(target) == digest:
            continue
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            module = name.removesuffix(f"-{DELTA_VERSION}.jar")
            command = [java, "-jar", str(ivy), "-dependency", "io.delta", module, DELTA_VERSION]
            command += ["-notransitive", "-types", "jar", "-cache", f"{scratch}/ivy"]
            command += ["-retrieve", f"{scratch}/out/[artifact]-[revision].[ext]"]
            done = subprocess.run(command, capture_output=True, text=True)
            fetched = Path(scratch) / "out" / name
            if done.returncode or not fetched.is_file():
                tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
                raise JarError(f"{name} could not be fetched by Ivy; put it into {folder} by hand.\n{tail}")
            if file_sha256(fetched) != digest:
                raise JarError(f"the fetched {name} is not the build that was tested (SHA-256 differs)")
            shutil.move(fetched, target)
    return delta_jars()
