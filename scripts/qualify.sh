#!/usr/bin/env bash
# The long forms: unit tests in random order many times over, the demo repeated, all benches. For the background.
#
# Writes docs/evidence/qualify.json: commit, versions, each part with its time and verdict. REPEATS (default 5) scales it.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH:/usr/sbin:/sbin" SECBEAT_QUALIFY=1
repeats=${REPEATS:-5}
rows=()

part() { # name command...
  local name=$1 start=$SECONDS verdict=ok
  shift
  scripts/step.sh "$name" "$@" || verdict=failed
  rows+=("{\"part\": \"$name\", \"seconds\": $((SECONDS - start)), \"verdict\": \"$verdict\"}")
}

for ((run = 1; run <= repeats; run++)); do
  part "demo $run of $repeats" secbeat demo --json
done
# More examples for every property test, under a profile of tests/conftest.py.
part "property tests, long" pytest -q -n 2 -m "" --hypothesis-profile=long tests/unit/orchestrator
for ((run = 1; run <= repeats; run++)); do
  part "integration and acceptance $run of $repeats" pytest -q -n 2 --dist loadgroup tests/integration tests/acceptance
done
part "benches" python -m bench

mkdir -p docs/evidence
{
  printf '{"commit": "%s", "at": "%s", "python": "%s", "parts": [\n  ' \
    "$(git rev-parse HEAD)" "$(date -u +%FT%TZ)" "$(python -V | cut -d' ' -f2)"
  (
    IFS=$'\n'
    sed '$!s/$/,/; 2,$s/^/  /' <<<"${rows[*]}"
  )
  printf '], "benches": '
  python -c 'import json,pathlib; print(json.dumps({p.stem: json.loads(p.read_text()) for p in sorted(pathlib.Path("bench/results").glob("*.json"))}))'
  printf '}\n'
} >docs/evidence/qualify.json
python -m json.tool docs/evidence/qualify.json >/dev/null
! grep -q '"failed"' <<<"${rows[*]}"
