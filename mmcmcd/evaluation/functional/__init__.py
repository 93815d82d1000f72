from .retrieval import neighbour_overlap, recall_at_k

__all__ = ['neighbour_overlap', 'recall_at_k']
