from .correspondence_picture import (
    Correspondence,
    save_correspondence_picture,
    spread_cells,
)
from .feature_map import (
    project_to_plane,
    require_projection,
    save_feature_map,
)
from .modality_distance import MEASURES, Settings, measure_distance
from .modality_distance_picture import save_distance_picture
from .paired_embeddings import (
    EmbeddedPairs,
    Ranking,
    rank_partners,
    unique_files,
)
from .retrieval_gallery import GalleryRow, Hit, save_retrieval_gallery
from .segmentation_picture import save_segmentation_picture
from .statistics import mean_interval, plus_minus, spearman_interval

__all__ = [
    'MEASURES',
    'Correspondence',
    'EmbeddedPairs',
    'GalleryRow',
    'Hit',
    'Ranking',
    'Settings',
    'mean_interval',
    'measure_distance',
    'plus_minus',
    'project_to_plane',
    'rank_partners',
    'require_projection',
    'save_correspondence_picture',
    'save_distance_picture',
    'save_feature_map',
    'save_retrieval_gallery',
    'save_segmentation_picture',
    'spearman_interval',
    'spread_cells',
    'unique_files',
]
