#!/usr/bin/env bash
# Prints the java to use (JAVA_HOME's first, then PATH's) when it is version 17 or newer; else says what to install.
set -euo pipefail
java=${JAVA_HOME:+$JAVA_HOME/bin/java}
if [ -z "$java" ]; then java=$(command -v java || true); fi
version=
if [ -n "$java" ] && [ -x "$java" ]; then
    # macOS ships a stub that only fails: no version then.
    version=$( ("$java" -version 2>&1 || true) | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
fi
if [ -n "$version" ] && [ "$version" -ge 17 ]; then
    echo "$java"
else
    echo "java: Spark needs Java 17 or newer (found: ${version:-none}); install one ('apt-get install" \
        "openjdk-17-jre-headless'; 'brew install --cask temurin@17') or set JAVA_HOME to one" >&2
    exit 1
fi
