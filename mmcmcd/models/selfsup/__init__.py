from .array_simclr import ArraySimCLR

__all__ = ['ArraySimCLR']
