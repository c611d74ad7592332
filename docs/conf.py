"""The documentation's settings: ``sphinx-build -W --keep-going docs docs/_build``."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "fxprune"
author = "the fxprune authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "fxprune"
html_show_copyright = False

# Single backticks in docstrings name code, as they do in Markdown.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# "Attributes:" as a list; as directives of their own they would describe dataclass fields twice.
napoleon_use_ivar = True
myst_heading_anchors = 3
