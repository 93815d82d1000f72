"""Stems of other input channels than their weights were trained with."""

from functools import partial

from torch import nn

from ...errors import ConfigError


def adapt_input_channels(module, mode='sum'):
    """Let a stem load weights that were made for other input channels.

    Registers a hook that changes the first convolution's weights while they
    are loaded, by ``load_state_dict`` or by mmengine's ``Pretrained``.  The
    idea of reducing over the input channels is timm's
    (``timm.models.adapt_input_conv``), which sums.  With C channels in the
    module each gets 1/C of the reduced kernel, so that C equal channels give
    the answer that one channel would.  Weights that fit already are left
    alone.

    Args:
        module (nn.Module): The backbone; its first ``nn.Conv2d`` whose number
            of input channels alone differs from the file's is adapted.
        mode (str): ``'sum'``: a grey image gives the response that it gave
            when repeated over all of the file's channels.  ``'mean'``: the
            mean kernel, a response smaller by the file's channels.

    Raises:
        ConfigError: ``mode`` is neither.
    """
    if mode not in ('sum', 'mean'):
        raise ConfigError(
            f"input channel adaptation must be 'sum' or 'mean', got {mode!r}."
        )
    module._register_load_state_dict_pre_hook(
        partial(_reduce_stem, mode=mode), with_module=True
    )


def _reduce_stem(module, state_dict, prefix, *_, mode):
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Conv2d) or layer.groups != 1:
            continue
        key = f'{prefix}{name}.weight' if name else f'{prefix}weight'
        weight = state_dict.get(key)
        if weight is None or not input_channels_differ(
            weight.shape, layer.weight.shape
        ):
            continue
        reduced = getattr(weight, mode)(dim=1, keepdim=True)
        channels = layer.in_channels
        state_dict[key] = reduced.repeat(1, channels, 1, 1) / channels
        return


def input_channels_differ(filed, wanted):
    """Whether two convolution shapes differ in input channels alone."""
    return (
        len(filed) == 4
        and filed[1] != wanted[1]
        and filed[0] == wanted[0]
        and filed[2:] == wanted[2:]
    )
