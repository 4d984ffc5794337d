"""Sphinx: Markdown by MyST, theme Furo; warnings are errors (scripts/docs.sh)."""

from secbeat import __version__

project = "SecBeat autoscale"
author = "The SecBeat autoscale authors"
copyright = "2026, the SecBeat autoscale authors"
release = version = __version__
extensions = ["myst_parser"]
exclude_patterns = ["_build", "evidence"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"SecBeat autoscale {release}"
html_copy_source = False
nitpicky = True
