"""Pictures from disk to arrays: sources, transforms, random augmentation, sampler, mixing, loader."""
from mindeit.data.images import Source, decode_rgb
from mindeit.data.loader import NO_LABEL, TrainingBatches, evaluation_batches, training_batches
from mindeit.data.mixing import Mixing
from mindeit.data.prefetch import WaitTimer
from mindeit.data.sampler import batches_per_epoch, uniform_draws
from mindeit.data.sources import DATASETS, list_images, open_source
from mindeit.data.train_transform import TrainTransform
from mindeit.data.transforms import IMAGENET_MEAN, IMAGENET_STD, EvalTransform

__all__ = ["DATASETS", "IMAGENET_MEAN", "IMAGENET_STD", "NO_LABEL", "EvalTransform", "Mixing", "Source",
           "TrainTransform", "TrainingBatches", "WaitTimer", "batches_per_epoch", "decode_rgb", "evaluation_batches",
           "list_images", "open_source", "training_batches", "uniform_draws"]
