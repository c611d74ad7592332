"""torch's layer classes by family: of any rank, and what other packages derive from them."""

from torch import nn

CONVOLUTION = nn.modules.conv._ConvNd
BATCH_NORM = nn.modules.batchnorm._BatchNorm
INSTANCE_NORM = nn.modules.instancenorm._InstanceNorm
# Both of these, with running statistics.
NORM = nn.modules.batchnorm._NormBase
