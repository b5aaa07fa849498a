"""The typed configuration: defaults < YAML < command line; every mistake at once, before work starts."""

from mindeit.config.options import option
from mindeit.config.parse import parse
from mindeit.config.schema import ALL, OF_TRAINING
from mindeit.config.whole import Config

__all__ = ["ALL", "OF_TRAINING", "Config", "option", "parse"]
