"""Enough file descriptors for a proxy's connections."""

from __future__ import annotations

import resource


def allow_many_files(wanted: int) -> int:
    """Raise this process's soft limit of open files toward ``wanted``; the limit that now holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if limit > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        return limit
    return soft
