#!/usr/bin/env bash
# Put HAProxy and the load generators wrk and h2load into .venv, for tests and benches; needs no root.
#
# The distribution's packages are unpacked and not installed: installing haproxy would start its service. Programs on
# the PATH are used as they are. Does nothing when all are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly home=$PWD/.venv/haproxy
declare -rA packages=([haproxy]=haproxy [wrk]=wrk [h2load]=nghttp2-client)
absent=()
for program in "${!packages[@]}"; do
  PATH="$PWD/.venv/bin:$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || absent+=("$program")
done
[ ${#absent[@]} -gt 0 ] || exit 0
command -v apt-get >/dev/null || exit 1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial"
# Lists of its own, so that a user without root can update them; sources and keys are the system's, and apt checks
# both signatures and hashes.
apt=(apt-get -qq -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o Debug::NoLocking=1 -o APT::Sandbox::User=root)

download() { # packages, and the libraries among their dependencies that this system lacks
  local wanted
  mapfile -t wanted < <("${apt[@]}" -s --no-install-recommends install "$@" | awk '/^Inst/ { print $2 }')
  [ ${#wanted[@]} -gt 0 ] && (cd "$work" && "${apt[@]}" download "${wanted[@]}")
}

echo "fetching ${absent[*]}" >&2
"${apt[@]}" update >"$work/log" 2>&1 && download "${packages[@]}" >>"$work/log" 2>&1 || {
  cat "$work/log" >&2
  exit 1
}
mkdir -p "$home"
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$home"; done
libraries=$(dirname "$(find "$home/usr/lib" -name 'liblua5*.so*' -o -name 'libev.so*' | head -1)")
for program in "${absent[@]}"; do
  found=$(find "$home/usr/bin" "$home/usr/sbin" -name "$program" | head -1)
  cat >".venv/bin/$program" <<WRAPPER
#!/bin/sh
LD_LIBRARY_PATH="$libraries\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" exec "$found" "\$@"
WRAPPER
  chmod +x ".venv/bin/$program"
done
.venv/bin/haproxy -v >/dev/null
