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
    return _checked(shapes, 161, 25_557_032)


def vit_l16() -> list[Shape]:
    """List the 296 parameter shapes of ViT-L/16, in the order of `model.parameters()`.

    Source of the architecture: Dosovitskiy et al. 2020, at 224 x 224 pixels with 1,000 classes, as
    torchvision builds it.
    """
    width, patches = 1024, (224 // 16) ** 2
    shapes: list[Shape] = [
        (1, 1, width),  # the class token
        *_affine((width, 3, 16, 16)),
        (1, patches + 1, width),  # the positions
    ]
    for _ in range(24):
        shapes.extend(_transformer_block(width))
    shapes.extend([*_norm(width), *_affine((1000, width))])
    return _checked(shapes, 296, 304_326_632)


def gpt2_medium() -> list[Shape]:
    """List the 292 parameter shapes of GPT-2 medium, the head sharing the tokens' embedding.

    Source of the architecture: Radford et al. 2019, as transformers builds it. There a layer's
    weight has its inputs first.
    """
    width, tokens, context = 1024, 50_257, 1024
    shapes: list[Shape] = [(tokens, width), (context, width)]
    for _ in range(24):
        block = _transformer_block(width)
        shapes.extend(shape[::-1] for shape in block)
    shapes.extend(_norm(width))
    return _checked(shapes, 292, 354_823_168)


def _transformer_block(width: int) -> list[Shape]:
    return [
        *_norm(width),
        *_affine((3 * width, width)),
        *_affine((width, width)),
        *_norm(width),
        *_affine((4 * width, width)),
        *_affine((width, 4 * width)),
    ]


def _affine(weight: Shape) -> list[Shape]:
    return [weight, weight[:1]]


def _norm(width: int) -> list[Shape]:
    return [(width,), (width,)]


def _checked(shapes: list[Shape], tensors: int, total: int) -> list[Shape]:
    assert len(shapes) == tensors, len(shapes)
    assert elements(shapes) == total, elements(shapes)
    return shapes


def many_small(count: int = 10_000, size: int = 64) -> list[Shape]:
    """List `count` vectors of `size` elements: all overhead, hardly any bytes."""
    return [(size,)] * count


def one_large(size: int = 100_000_000) -> list[Shape]:
    """List a single vector of `size` elements: all bytes, no overhead."""
    return [(size,)]


def shrunk(shapes: list[Shape], by: int) -> list[Shape]:
    """Divide the size of every shape by `by`, and their number if all are the same."""
    if len(set(shapes)) == 1 and len(shapes) > 1:
        return shapes[: math.ceil(len(shapes) / by)]
    return [(math.ceil(math.prod(shape) / by),) for shape in shapes] if by > 1 else shapes


def elements(shapes: list[Shape]) -> int:
    """Count the elements of all shapes together."""
    return sum(math.prod(shape) for shape in shapes)
