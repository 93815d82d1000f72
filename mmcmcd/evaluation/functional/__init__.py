from .knn import check_knn, knn_predict, knn_votes
from .retrieval import (
    location_errors,
    neighbour_overlap,
    retrieval_figures,
)

__all__ = [
    'check_knn',
    'knn_predict',
    'knn_votes',
    'location_errors',
    'neighbour_overlap',
    'retrieval_figures',
]
