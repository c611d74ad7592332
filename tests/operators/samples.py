"""All samples: at least one network for every operator that has a rule and that Python can reach."""

import contraction_samples
import core_samples
import gradient_samples
import movement_samples
import pointwise_samples
import spelling_samples
import statistics_samples
from nets import Sample

SAMPLES: list[Sample] = [*pointwise_samples.SAMPLES, *movement_samples.SAMPLES, *contraction_samples.SAMPLES,
                         *statistics_samples.SAMPLES, *core_samples.SAMPLES, *spelling_samples.SAMPLES,
                         *gradient_samples.SAMPLES]
