"""One entry of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "info", "untyped"]
Service = Literal["orchestrator", "provisioner", "node"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric as a scraper sees it.

    Attributes:
        name: with the suffix that its kind puts behind it (``_total``, ``_info``); a histogram's without.
        labels: every label that a series of it has.
        values: per label the closed list of its values, or in words what they are.
        unit: of the value; empty for counts and for 0 or 1.
        buckets: upper bounds, of a histogram.
        since: the version that brought it.
    """

    name: str
    kind: Kind
    service: Service
    help: str
    labels: tuple[str, ...] = ()
    values: dict[str, str] = field(default_factory=dict)
    unit: str = ""
    buckets: tuple[float, ...] = ()
    since: str = "0.1.0"

    @property
    def family(self) -> str:
        """The name that Prometheus' client library takes, which puts the suffix behind it by itself."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        return self.name.removesuffix(suffix)

    @property
    def series(self) -> frozenset[str]:
        """The names under which its samples are found."""
        if self.kind == "histogram":
            return frozenset(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return frozenset({self.name})
