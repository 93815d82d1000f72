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
from .paired_embeddings import (
    EmbeddedPairs,
    Ranking,
    rank_partners,
    unique_files,
)
from .retrieval_gallery import GalleryRow, Hit, save_retrieval_gallery
from .segmentation_picture import save_segmentation_picture
from .statistics import mean_interval

__all__ = [
    'Correspondence',
    'EmbeddedPairs',
    'GalleryRow',
    'Hit',
    'Ranking',
    'mean_interval',
    'project_to_plane',
    'rank_partners',
    'require_projection',
    'save_correspondence_picture',
    'save_feature_map',
    'save_retrieval_gallery',
    'save_segmentation_picture',
    'spread_cells',
    'unique_files',
]
