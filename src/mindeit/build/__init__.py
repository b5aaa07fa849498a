"""From configuration to objects. Besides the doors, only this room knows the configuration."""
from mindeit.build.deployment import deployment
from mindeit.build.evaluation import contents, predictor, summary, validation
from mindeit.build.header import begin
from mindeit.build.machine import machine
from mindeit.build.training import run_folder, training

__all__ = ["begin", "contents", "deployment", "machine", "predictor", "run_folder", "summary", "training", "validation"]
