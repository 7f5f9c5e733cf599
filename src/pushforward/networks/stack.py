"""When a perceptron with rectifiers may be one operation, by a fused kernel, and that operation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..kernels import calls
from ..kernels.chain import Layer, Link, Stairs, chain, under
from ..kernels.table import available

Stack = tuple[list[Layer], Tensor | None]


def stairs(mask: Tensor) -> Stairs:
    """Return the stairs of a mask, ``(rows, columns)``.

    Example:
        >>> stairs(torch.tensor([[True, False], [False, False], [True, True]]))
        Stairs(reach=tensor([1, 0, 2]), first=tensor([0, 2]), whole=True)
    """
    mask = mask.cpu()
    rows, columns = mask.shape
    reach = (mask * torch.arange(1, columns + 1, device="cpu")).amax(1)
    first = rows - (mask * torch.arange(rows, 0, -1, device="cpu")[:, None]).amax(0)
    return Stairs(reach, first, bool((mask == under(reach, columns)).all()))


def serves(x: Tensor) -> bool:
    """Return whether the kernel may compute with points like these: float32 on the CPU, many, that nobody follows."""
    return calls.serves(x) and not torch.is_autocast_enabled("cpu") and available()


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a call of the module is the ``forward`` of this kind, and nothing else."""
    own = module.__dict__
    return (
        type(module).forward is kind.forward
        and "forward" not in own
        and not (own["_forward_hooks"] or own["_forward_pre_hooks"])
        and not (own["_backward_hooks"] or own["_backward_pre_hooks"])
    )


def plain_layers(modules: Sequence[nn.Module], kind: type[nn.Module], inputs: int) -> list[Layer] | None:
    """Return the layers of a perceptron with rectifiers; None where its modules are others, do more, or do not fit.

    Then torch's own calls say what is wrong, or know how to go on. This is asked before every pass, and so it looks
    into the modules' dictionaries: asking for their attributes would take longer than a small network's arithmetic.

    Args:
        modules: Layers and, between them, activations.
        kind: What the layers should be.
        inputs: How many numbers of a point the first is given.
    """
    layers = []
    for i, module in enumerate(modules):
        if not is_plain(module, nn.ReLU if i % 2 else kind):
            return None
        if i % 2:
            continue
        parameters = module.__dict__["_parameters"]
        weight, bias = (
            parameters.get("weight"),
            parameters.get("bias"),
        )  # those of parametrised layers are not there
        if weight is None or bias is None or not (calls.plain(weight) and calls.plain(bias)):
            return None
        outputs = bias.numel()
        if weight.shape != (outputs, inputs) or bias.ndim != 1:
            return None
        layers.append(Layer(weight, bias))
        inputs = outputs
    return layers


def adds(context: Tensor | None, layers: Sequence[Layer], batch: Sequence[int]) -> bool:
    """Return whether a context can be added, for points of a batch, to what the first layer gives."""
    return context is None or (
        calls.plain(context)
        and context.shape[-1] == layers[0].bias.numel()
        and torch.broadcast_shapes(context.shape[:-1], batch) == tuple(batch)
    )


def perceptron(x: Tensor, layers: Sequence[Layer], context: Tensor | None = None) -> Tensor:
    r"""Return :math:`W_L\, r(\dots r(W_1 x + b_1 + c) \dots) + b_L` with rectifiers :math:`r(u) = \max(u, 0)`.

    Args:
        x: Points, ``(*batch, inputs)``.
        layers: Its layers.
        context: What is added before the first rectifier, ``(*context_batch, width)``.
    """
    batch = x.shape[:-1]
    y, _ = chain(x.reshape(-1, x.shape[-1]), [Link(layers, in_rows(context, batch), None)])
    return y.reshape(*batch, y.shape[-1])


def in_rows(context: Tensor | None, batch: Sequence[int]) -> Tensor | None:
    """Return the context as a matrix with a row for each point, or with one row for all."""
    if context is None:
        return None
    width = context.shape[-1]
    one = context.numel() == width
    return (context if one else context.expand(*batch, width)).reshape(-1, width)
