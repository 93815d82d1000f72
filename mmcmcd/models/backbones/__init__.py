from .conv_nets import ClipConvNet, TemporalConvNet

__all__ = ['ClipConvNet', 'TemporalConvNet']
