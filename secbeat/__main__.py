"""``python -m secbeat``."""

from __future__ import annotations

import sys

from secbeat.cli import main

if __name__ == "__main__":
    sys.exit(main())
