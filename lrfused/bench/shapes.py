"""Generate the parameter shapes that the benchmark steps over."""

import math

Shape = tuple[int, ...]


def resnet50() -> list[Shape]:
    """List the 161 parameter shapes of ResNet-50, in the order of `model.parameters()`.

    Source of the architecture: He et al. 2015, with 1,000 classes, as torchvision builds it.
    """
    shapes: list[Shape] = []

    def convolution(channels_in: int, channels_out: int, kernel: int) -> None:
        shapes.append((channels_out, channels_in, kernel, kernel))
        shapes.extend([(channels_out,), (channels_out,)])  # the batch norm's weight and bias

    convolution(3, 64, 7)
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            convolution(channels, width, 1)
            convolution(width, width, 3)
            convolution(width, 4 * width, 1)
            if block == 0:  # the shortcut changes the number of channels here
                convolution(channels, 4 * width, 1)
            channels = 4 * width
    shapes.extend([(1000, channels), (1000,)])

    assert len(shapes) == 161, len(shapes)
    assert elements(shapes) == 25_557_032, elements(shapes)
    return shapes


def many_small(count: int = 10_000, size: int = 64) -> list[Shape]:
    """List `count` vectors of `size` elements: all overhead, hardly any bytes."""
    return [(size,)] * count


def one_large(size: int = 25_000_000) -> list[Shape]:
    """List a single vector of `size` elements: all bytes, no overhead."""
    return [(size,)]


def elements(shapes: list[Shape]) -> int:
    """Count the elements of all shapes together."""
    return sum(math.prod(shape) for shape in shapes)
