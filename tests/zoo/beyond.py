"""Small nets beyond vision backbones."""

CASES = {}
