from .metrics import CrossModalRetrieval, RegionRetrieval

__all__ = ['CrossModalRetrieval', 'RegionRetrieval']
