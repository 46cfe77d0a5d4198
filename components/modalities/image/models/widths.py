"""The channels of a network's layers, which are fewer than its name says once it was pruned."""

from collections.abc import Mapping

from torch import Tensor, nn


def set_widths(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the layers of a network the shapes of a state's tensors, in place, so that it can be loaded.

    Convolutions, BatchNorm and linear layers are changed; what others hold must have its shape already. Tensors of
    another shape hold anything until then.

    Args:
        net: built by its name, with a linear head.
        state: of the same network with other numbers of channels.
    """
    head = net.get_classifier()  # type: ignore[operator]
    features = head.in_features
    for name, layer in net.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None or not isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            continue
        if weight.ndim != layer.weight.ndim:
            continue  # of another network, which load_state_dict refuses
        _set_attributes(layer, *weight.shape[:2])
        for own, tensor in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
            wanted = state.get(f"{name}.{own}")
            if wanted is not None and wanted.shape != tensor.shape:
                empty = tensor.new_empty(wanted.shape)
                setattr(layer, own, nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty)
    for attribute in ("num_features", "head_hidden_size"):  # from which a new head is made
        if getattr(net, attribute, None) == features:
            setattr(net, attribute, head.in_features)


def _set_attributes(layer: nn.Conv2d | nn.BatchNorm2d | nn.Linear, out: int, inner: int = 0) -> None:
    """Set what a layer says of its own channels: ``out`` of them, and ``inner``, the weight's second dimension."""
    if isinstance(layer, nn.BatchNorm2d):
        layer.num_features = out
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = out, inner
    else:
        if layer.groups == layer.in_channels == layer.out_channels:  # a filter for each channel
            layer.groups = out
        layer.out_channels, layer.in_channels = out, inner * layer.groups
