"""How Sphinx builds the documentation; run by `make docs`."""

import cubehook

project = "cubehook"
author = "The cubehook authors"
copyright = "2026, The cubehook authors"
version = release = cubehook.__version__

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"cubehook {release}"
html_show_sphinx = False
