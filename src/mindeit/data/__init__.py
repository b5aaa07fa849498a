"""Images from disk to arrays: sources, transforms, random augmentation, sampler, mixing, loader."""

from mindeit.data.classes import number_as
from mindeit.data.images import Source, decode_rgb
from mindeit.data.loader import (
    NO_LABEL,
    EvaluationBatches,
    TrainingBatches,
    TrainingData,
    evaluation_batches,
    training_batches,
)
from mindeit.data.mixing import Mixing
from mindeit.data.processes import Processes
from mindeit.data.sampler import batches_per_epoch
from mindeit.data.sources import DATASETS, list_images, open_source
from mindeit.data.split import Division
from mindeit.data.streams import uniform_draws
from mindeit.data.train_transform import TrainTransform
from mindeit.data.transforms import IMAGENET_MEAN, IMAGENET_STD, EvalTransform
from mindeit.data.wait_timer import WaitTimer
from mindeit.data.workers import Threads, Workers

__all__ = [
    "DATASETS",
    "Division",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "NO_LABEL",
    "EvalTransform",
    "EvaluationBatches",
    "Mixing",
    "Processes",
    "Source",
    "Threads",
    "TrainTransform",
    "TrainingBatches",
    "TrainingData",
    "WaitTimer",
    "Workers",
    "batches_per_epoch",
    "decode_rgb",
    "evaluation_batches",
    "list_images",
    "number_as",
    "open_source",
    "training_batches",
    "uniform_draws",
]
