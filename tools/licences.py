"""The licences of what is installed: `.venv/bin/python tools/licences.py > docs/licences.md`.

From the packages' own metadata; asks no service. `--check` fails where a licence is copyleft, proprietary or not stated
and nobody has looked at it.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import Distribution, distributions

# Licences that are not plainly permissive, or not stated in the metadata, and what was found.
LOOKED_AT = {
    "certifi": "data file, used unchanged",
    "hypothesis": "development only",
    "pathspec": "used unchanged",
    "psycopg2-binary": "production extra; used unchanged as a library, which the LGPL allows",
    "tqdm": "used unchanged",
    "cuda-toolkit": "NVIDIA's own licence, as below",
}
# torch brings them on Linux; they may be used but not passed on freely. A CPU build of torch needs none.
NVIDIA = "NVIDIA's own licence: comes with torch on Linux, may not be passed on freely"
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|MPL|EPL|EUPL|CDDL|OSL|GNU|Mozilla|SSPL|Proprietary)", re.IGNORECASE)
OURS = "sid-pipeline"


def note_of(name: str) -> str:
    """What was found when somebody looked; empty where nobody did."""
    return LOOKED_AT.get(name) or (NVIDIA if name.startswith("nvidia-") else "")


def licence_of(package: Distribution) -> str:
    """What a package says of its licence, in one line; empty where it says nothing."""
    metadata = package.metadata
    stated = metadata.get("License-Expression") or ""
    classified = [
        value.rpartition(" :: ")[2]
        for value in metadata.get_all("Classifier") or []
        if value.startswith("License :: ") and value.count("::") > 1
    ]
    text = (metadata.get("License") or "").strip().splitlines()
    found = stated or "; ".join(classified) or (text[0] if text else "")
    return found[:100] or _from_file(package)


def _from_file(package: Distribution) -> str:
    for file in package.files or []:
        if re.match(r"(licen[cs]e|copying)", file.name, re.IGNORECASE):
            words = " ".join(file.read_text(encoding="utf-8", errors="replace").split()[:12]) if _there(file) else ""
            if words:
                return f"file {file.name}: {words}"[:100]
    return ""


def _there(file: object) -> bool:
    return file.locate().is_file()  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    packages = {p.metadata["Name"].lower().replace("_", "-"): p for p in distributions() if p.metadata["Name"]}
    packages.pop(OURS, None)
    rows = [(name, packages[name].version, licence_of(packages[name])) for name in sorted(packages)]
    unseen = [row for row in rows if not note_of(row[0]) and (not row[2] or COPYLEFT.search(row[2]))]
    if arguments.check:
        for name, version, licence in unseen:
            print(f"{name} {version}: {licence or 'no licence is stated'}", file=sys.stderr)
        sys.exit(bool(unseen))
    print("# Licences of what is installed\n")
    print(
        "Made by `tools/licences.py` from the packages' metadata (development and production extras too, on Linux).\n"
    )
    print("| package | version | licence | looked at |\n| --- | --- | --- | --- |")
    for name, version, licence in rows:
        cells = (name, version, licence.replace("|", "/") or "not stated", note_of(name))
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
