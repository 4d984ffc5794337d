"""A stand-in for the node: listens where its configuration says, ends on SIGTERM; misbehaves when told to."""

import json
import os
import signal
import socket
import sys
import time
import tomllib
from pathlib import Path

mode = sys.argv[1]
config = tomllib.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
Path("seen.json").write_text(
    json.dumps({"env": dict(os.environ), "fds": sorted(map(str, Path("/proc/self/fd").iterdir()))})
)
if mode == "die":
    sys.stderr.write("error: the disk is on fire\n")
    sys.exit(2)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "deaf":
    time.sleep(600)
servers = []
for address in (config["node"]["listen_addr"], config["management"]["listen_addr"]):
    host, _, port = address.rpartition(":")
    servers.append(socket.create_server((host, int(port))))
time.sleep(600)
