"""The nets of tests/structures are saved and loaded as well."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "structures"))
