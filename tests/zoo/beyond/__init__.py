"""Small nets beyond vision backbones: what people prune that no zoo ships, and Hugging Face models from a config."""

from tests.zoo.beyond.generators import CASES as GENERATORS
from tests.zoo.beyond.huggingface import CASES as HUGGINGFACE
from tests.zoo.beyond.pyramids import CASES as PYRAMIDS
from tests.zoo.beyond.sequences import CASES as SEQUENCES
from tests.zoo.beyond.transformers import CASES as TRANSFORMERS

CASES = {**PYRAMIDS, **GENERATORS, **SEQUENCES, **TRANSFORMERS, **HUGGINGFACE}
