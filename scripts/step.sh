#!/usr/bin/env bash
# Run one step of a make target and say how long it took: step.sh NAME COMMAND...
set -uo pipefail
name=$1
shift
start=$SECONDS
echo "== $name"
"$@"
status=$?
if [ "$status" = 0 ]; then verdict=ok; else verdict="FAILED ($status)"; fi
echo "== $name: $verdict, $((SECONDS - start)) s"
exit "$status"
