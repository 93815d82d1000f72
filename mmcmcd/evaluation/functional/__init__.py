from .knn import check_knn, knn_predict, knn_votes
from .retrieval import neighbour_overlap, retrieval_figures

__all__ = [
    'check_knn',
    'knn_predict',
    'knn_votes',
    'neighbour_overlap',
    'retrieval_figures',
]
