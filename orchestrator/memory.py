"""Memory after loading: a large fleet must not make the collector stop the loop, nor what loading took stay with us.

By default a full collection walks through everything that the process holds, a hundred milliseconds with a large
fleet, and finds nothing: nodes, records and modules form no cycles and stay.
"""

from __future__ import annotations

import ctypes
import gc

_YOUNG = 50_000  # objects made, and not gone, before the young ones are looked through: two milliseconds


def settle() -> None:
    """What is held now is held for good: no collection looks at it again. Call it when everything is loaded.

    Objects without cycles are freed all the same, whenever their last reference goes.
    """
    gc.set_threshold(_YOUNG)
    gc.collect()
    gc.freeze()
    # glibc keeps what was freed between what is held: a tenth of the whole. Other C libraries have no such call.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
