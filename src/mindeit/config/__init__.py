"""The typed configuration: defaults < YAML < command line; every mistake at once, before work starts."""

from mindeit.config.options import option
from mindeit.config.parse import parse
from mindeit.config.whole import ALL, OF_TRAINING, Config

__all__ = ["ALL", "OF_TRAINING", "Config", "option", "parse"]
