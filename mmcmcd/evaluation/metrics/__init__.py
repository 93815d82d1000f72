from .cross_modal_retrieval import CrossModalRetrieval

__all__ = ['CrossModalRetrieval']
