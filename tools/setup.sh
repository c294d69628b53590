#!/usr/bin/env bash
# Makes the environment that every make target needs: .venv with the locked dependencies, Java 17 or newer, and in the
# user's cache Delta's two JARs and the archive of Spark's classes. Safe to run again; when nothing changed it does nothing and needs no network.
#   PYTHON=/path/to/python3.12 make setup    chooses the interpreter (3.10 to 3.13)
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.sid-setup
wanted=$(cat requirements.lock tools/requirements-uv.lock pyproject.toml tools/setup.sh | cksum)
jars=${SID_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}}/sid_pipeline/jars
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && tools/java.sh >/dev/null 2>&1 &&
    [ "$(ls "$jars"/delta-*.jar 2>/dev/null | wc -l)" -ge 2 ]; then
    exit 0
fi

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
can_apt() { command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; }

suits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    if command -v "$candidate" >/dev/null && suits "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    echo "setup: no Python 3.10 to 3.13 found; install one, or name it: PYTHON=/path/to/python make setup" >&2
    exit 1
fi

started=$SECONDS
if ! [ -x .venv/bin/python ] || ! suits .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "setup: making .venv with $("$python" --version)"
    rm -rf .venv
    if ! "$python" -m venv .venv 2>/dev/null; then
        # Debian and Ubuntu ship Python without its venv module.
        rm -rf .venv
        if can_apt; then
            as_root apt-get update -qq && as_root apt-get install -y -qq python3-venv >/dev/null
            "$python" -m venv .venv
        else
            echo "setup: '$python -m venv' fails; install Python's venv module (Debian, Ubuntu: python3-venv)" >&2
            exit 1
        fi
    fi
fi
echo "setup: installing the locked dependencies (about 7 GB on Linux, most of it torch's CUDA libraries)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/requirements-uv.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .

if ! tools/java.sh >/dev/null 2>&1; then
    if can_apt; then
        echo "setup: installing a Java runtime"
        as_root apt-get update -qq
        as_root apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless >/dev/null ||
            as_root apt-get install -y -qq --no-install-recommends default-jre-headless >/dev/null
    fi
    tools/java.sh >/dev/null
fi
.venv/bin/sid setup
echo "$wanted" >"$stamp"
echo "setup: done in $((SECONDS - started)) s, .venv holds $(du -sh .venv | cut -f1)"
