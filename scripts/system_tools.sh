#!/usr/bin/env bash
# System programs that tests call: install them if that needs no password, else say what is left out.
#
# Prints on stdout the pytest marker expression that leaves out the tests of missing programs (nothing if all are
# there). With SECBEAT_CI=1 nothing may be left out: a missing program fails.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/privileges.sh
. scripts/privileges.sh

# program:Debian package. Each has a marker needs_<program> in pyproject.toml.
readonly tools=(curl:curl ip:iproute2)

missing() {
  local tool
  for tool in "${tools[@]}"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${tool%%:*}" >/dev/null || echo "$tool"
  done
}

mapfile -t absent < <(missing)
if [ ${#absent[@]} -gt 0 ] && may_install; then
  apt_install "${absent[@]##*:}" || true
  mapfile -t absent < <(missing)
fi
scripts/promtool.sh || absent+=(promtool:prometheus)
scripts/haproxy.sh || absent+=(haproxy:haproxy)
[ ${#absent[@]} -gt 0 ] || exit 0

echo "missing programs: ${absent[*]%%:*}" >&2
echo "  fix: sudo apt-get install ${absent[*]##*:}" >&2
if [ "${SECBEAT_CI:-}" = 1 ]; then
  echo "nothing may be left out here (SECBEAT_CI=1)" >&2
  exit 1
fi
expression=
for tool in "${absent[@]}"; do
  echo "  left out: tests marked needs_${tool%%:*}" >&2
  expression+="${expression:+ and }not needs_${tool%%:*}"
done
echo "$expression"
