from .cross_modal_retrieval import CrossModalRetrieval
from .region_retrieval import RegionRetrieval

__all__ = ['CrossModalRetrieval', 'RegionRetrieval']
