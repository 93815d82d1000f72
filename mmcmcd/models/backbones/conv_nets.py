"""Small residual networks for series and clips, which mmpretrain lacks."""

from collections.abc import Sequence

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmcmcd.errors import ConfigError
from mmcmcd.registry import MODELS


class _Block(nn.Module):
    """Two convolutions and a shortcut, as the basic block of ResNet."""

    def __init__(self, dims, inside, outside, kernel_size, stride, dilation):
        super().__init__()

        def conv(channels, kernel_size, stride=1, dilation=1):
            return nn.Sequential(
                build_conv_layer(
                    dict(type=f'Conv{dims}d'),
                    channels,
                    outside,
                    kernel_size,
                    stride=stride,
                    dilation=dilation,
                    padding=dilation * (kernel_size // 2),
                    bias=False,
                ),
                build_norm_layer(dict(type=f'BN{dims}d'), outside)[1],
            )

        self.conv1 = conv(inside, kernel_size, stride, dilation)
        self.conv2 = conv(outside, kernel_size, dilation=dilation)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = (
            nn.Identity()
            if inside == outside and stride == 1
            else conv(inside, 1, stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.relu(self.conv1(x)))
        return self.relu(out + self.shortcut(x))


class _ConvNet(BaseModule):
    """Residual stages over (B, C, T, *space), one block each."""

    dims: int
    layout: str

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        kernel_size: int,
        strides: Sequence[int] | None,
        dilations: Sequence[int] | None,
        dropout: float,
        out_indices: Sequence[int],
        frozen_stages: int,
        init_cfg: dict | None,
    ) -> None:
        if init_cfg is None:
            init_cfg = [dict(type='Kaiming', layer=f'Conv{self.dims}d')]
        super().__init__(init_cfg)
        num = len(channels)
        if not num:
            raise self._wrong('channels is empty: give the width of a stage')
        strides = (2,) * num if strides is None else tuple(strides)
        dilations = (1,) * num if dilations is None else tuple(dilations)
        if not num == len(strides) == len(dilations):
            raise self._wrong(
                'channels, strides and dilations need one value a stage, but '
                f'have {num}, {len(strides)} and {len(dilations)}'
            )
        if any(not -num <= index < num for index in out_indices):
            raise self._wrong(
                f'out_indices={tuple(out_indices)} must lie in {-num} to '
                f'{num - 1}'
            )
        if kernel_size % 2 == 0:
            raise self._wrong(f'kernel_size={kernel_size} must be odd')
        if not 0 <= frozen_stages <= num:
            raise self._wrong(
                f'frozen_stages={frozen_stages} must be 0 to {num}'
            )
        self.out_indices = tuple(i % num for i in out_indices)
        self.in_channels = in_channels
        self.frozen_stages = frozen_stages
        widths = (in_channels, *channels)
        self.stages = nn.ModuleList(
            _Block(self.dims, *widths[i : i + 2], kernel_size, stride, gap)
            for i, (stride, gap) in enumerate(
                zip(strides, dilations, strict=True)
            )
        )
        self.dropout = nn.Dropout(dropout)
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of the stages in ``out_indices``."""
        if x.ndim != self.dims + 2 or x.shape[1] != self.in_channels:
            raise self._wrong(
                f'the input must be {self.layout} with C={self.in_channels}, '
                f'but has shape {tuple(x.shape)}. Set in_channels, or correct '
                'the pipeline'
            )
        outs = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                outs.append(self._as_map(self.dropout(x)))
        return tuple(outs)

    def train(self, mode: bool = True) -> nn.Module:
        """Keep frozen stages in eval mode and without gradients."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self):
        for stage in self.stages[: self.frozen_stages]:
            stage.eval()
            stage.requires_grad_(False)

    def _wrong(self, text):
        return ConfigError(f'{type(self).__name__}: {text}.')

    @staticmethod
    def _as_map(x):
        raise NotImplementedError


@MODELS.register_module()
class TemporalConvNet(_ConvNet):
    """Residual temporal convolution network for multi-channel series.

    One basic block of ResNet in 1-D per stage, strided or dilated, not
    causal. Relatives: the ResNet of Wang et al., "Time series classification
    from scratch", 2017, and the TCN of Bai et al., 2018.

    Features are maps (B, D, 1, T') of one row, so that necks and heads for
    images (``GlobalAveragePooling``, ``NonLinearNeck``, ``LinearClsHead``)
    take them as they are.

    Args:
        in_channels (int): Channels C of the input (B, C, T).
        channels (Sequence[int]): Width of each stage. Defaults to
            (64, 128, 128).
        kernel_size (int): Odd, in samples. Defaults to 5.
        strides (Sequence[int], optional): Of each stage. Defaults to None:
            2 everywhere.
        dilations (Sequence[int], optional): Of each stage. Defaults to None:
            1 everywhere.
        dropout (float): On the output. Defaults to 0.
        out_indices (Sequence[int]): Stages to return. Defaults to (-1, ).
        frozen_stages (int): So many first stages are in eval mode and get no
            gradient. Defaults to 0.
        init_cfg (dict, optional): As in mmengine. Defaults to None: Kaiming.

    Raises:
        ConfigError: Arguments contradict each other, or the input has another
            shape.
    """

    dims = 1
    layout = '(B, C, T)'

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int] = (64, 128, 128),
        kernel_size: int = 5,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        dropout: float = 0.0,
        out_indices: Sequence[int] = (-1,),
        frozen_stages: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            kernel_size,
            strides,
            dilations,
            dropout,
            out_indices,
            frozen_stages,
            init_cfg,
        )

    @staticmethod
    def _as_map(x):
        return x.unsqueeze(2)


@MODELS.register_module()
class ClipConvNet(_ConvNet):
    """Residual 3-D convolution network for clips such as depth video.

    As :class:`TemporalConvNet`, with 3-D convolutions; relatives: the
    3-D ResNets of Tran et al., "A closer look at spatiotemporal
    convolutions", 2018. Features are maps (B, D, T', H' * W'), so that
    necks and heads for images take them as they are.

    Args:
        in_channels (int): Channels C of the input (B, C, T, H, W). Defaults
            to 1.
        channels (Sequence[int]): Width of each stage. Defaults to
            (16, 32, 64, 128).
        kernel_size (int): Odd, in frames and pixels. Defaults to 3.
        strides (Sequence[int | Sequence[int]], optional): Of each stage, a
            number or (time, height, width). Defaults to None: (1, 2, 2) in
            the first stage, 2 everywhere in the others.
        dropout (float): On the output. Defaults to 0.
        out_indices (Sequence[int]): Stages to return. Defaults to (-1, ).
        frozen_stages (int): So many first stages are in eval mode and get no
            gradient. Defaults to 0.
        init_cfg (dict, optional): As in mmengine. Defaults to None: Kaiming.

    Raises:
        ConfigError: Arguments contradict each other, or the input has another
            shape.
    """

    dims = 3
    layout = '(B, C, T, H, W)'

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 32, 64, 128),
        kernel_size: int = 3,
        strides: Sequence | None = None,
        dropout: float = 0.0,
        out_indices: Sequence[int] = (-1,),
        frozen_stages: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        if strides is None:
            strides = [(1, 2, 2)] + [2] * (len(channels) - 1)
        super().__init__(
            in_channels,
            channels,
            kernel_size,
            strides,
            None,
            dropout,
            out_indices,
            frozen_stages,
            init_cfg,
        )

    @staticmethod
    def _as_map(x):
        return x.flatten(3)
