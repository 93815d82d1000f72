from .cka import cka_jackknife, linear_cka
from .knn import check_knn, knn_predict, knn_votes
from .modality_distance import (
    PairMean,
    alignment_rows,
    centroid_gap,
    join_groups,
    mmd_squared,
    tv_similarity_rows,
    uniformity,
)
from .retrieval import (
    location_errors,
    neighbour_overlap,
    retrieval_figures,
)
from .two_sample import (
    fit_logistic,
    held_out_accuracy,
    median_distance,
    random_signs,
    split_groups,
)

__all__ = [
    'PairMean',
    'alignment_rows',
    'centroid_gap',
    'check_knn',
    'cka_jackknife',
    'fit_logistic',
    'held_out_accuracy',
    'join_groups',
    'knn_predict',
    'knn_votes',
    'linear_cka',
    'location_errors',
    'median_distance',
    'mmd_squared',
    'neighbour_overlap',
    'random_signs',
    'retrieval_figures',
    'split_groups',
    'tv_similarity_rows',
    'uniformity',
]
