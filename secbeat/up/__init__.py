"""`secbeat up`: everything in one terminal, on one state directory.

`Instance` is the same for programs: the demo and the acceptance tests start and stop it. Imported lazily by the
command, because it brings the HTTP client and the NATS adapter.
"""

from __future__ import annotations

from secbeat.up.instance import Happening, Instance
from secbeat.up.planning import Urls
from secbeat.up.running import run

__all__ = ["Happening", "Instance", "Urls", "run"]
