from .segmentation_picture import save_segmentation_picture
from .statistics import mean_interval

__all__ = ['mean_interval', 'save_segmentation_picture']
