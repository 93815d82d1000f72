from .metrics import CrossModalRetrieval

__all__ = ['CrossModalRetrieval']
