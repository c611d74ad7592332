"""transformers' architectures, by the names that its configurations have: one model each, small and without weights."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from tests.zoo.configured.inputs import example
from tests.zoo.configured.options import INPUTS, OPTIONS
from tests.zoo.configured.shrink import small

# What an architecture is mostly used as, the first that it has.
TASKS = """SEQ_TO_SEQ_CAUSAL_LM SPEECH_SEQ_2_SEQ CAUSAL_LM IMAGE_TEXT_TO_TEXT IMAGE_CLASSIFICATION OBJECT_DETECTION
INSTANCE_SEGMENTATION UNIVERSAL_SEGMENTATION SEMANTIC_SEGMENTATION DEPTH_ESTIMATION CTC AUDIO_CLASSIFICATION
MASKED_LM TIME_SERIES_PREDICTION""".split()


def names() -> list[str]:
    if find_spec("transformers") is None:
        return []
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    listed = Path(__file__).with_name("transformers.txt").read_text().split()
    return [name for name in listed if name in CONFIG_MAPPING_NAMES]


def build(name: str) -> tuple[nn.Module, dict[str, Any]]:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = small(CONFIG_MAPPING[name], OPTIONS.get(name, {}))
    model = getattr(transformers, _class(name))(config)
    return model, INPUTS.get(name) or example(model, config)


def _class(name: str) -> str:
    from transformers.models.auto import modeling_auto

    tables = [getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {}) for task in TASKS]
    found = next(table[name] for table in (*tables, modeling_auto.MODEL_MAPPING_NAMES) if name in table)
    return found if isinstance(found, str) else found[0]
