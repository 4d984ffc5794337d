#!/usr/bin/env bash
# Put Prometheus' promtool into .venv, for the tests of the alert rules; needs no root.
#
# The distribution's package is unpacked and not installed: installing it would start a server. A promtool on the PATH
# is used as it is. Does nothing when there is one already.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly home=.venv/promtool
if PATH="$PWD/.venv/bin:$PATH" command -v promtool >/dev/null; then exit 0; fi
command -v apt-get >/dev/null || exit 1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial"
# Lists of its own, so that a user without root can update them; sources and keys are the system's, and apt checks
# both signatures and hashes.
apt=(apt-get -qq -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o Debug::NoLocking=1 -o APT::Sandbox::User=root)

download() {
  (cd "$work" && { apt-get -qq -o APT::Sandbox::User=root download prometheus || { "${apt[@]}" update && "${apt[@]}" download prometheus; }; })
}

echo "fetching promtool" >&2
download >"$work/log" 2>&1 || {
  cat "$work/log" >&2
  exit 1
}
mkdir -p "$home"
dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -C "$home" --strip-components=3 ./usr/bin/promtool
ln -sf "../promtool/promtool" .venv/bin/promtool
.venv/bin/promtool --version >/dev/null
