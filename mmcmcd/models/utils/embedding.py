import torch
from torch import Tensor, nn

from mmcmcd.errors import ConfigError


def embed(features, projector: nn.Module | None = None) -> Tensor:
    """Turn the output of a backbone into one embedding per sample.

    Args:
        features (Tensor | tuple): Output of an mmpretrain or mmseg backbone;
            of a tuple the last stage is taken. A map (B, C, H, W) or tokens
            (B, L, C) are averaged, vectors (B, C) are taken as they are.
        projector (nn.Module, optional): A neck, given ``((B, C, 1, 1), )``,
            so that it may pool by itself or not.

    Returns:
        Tensor: Embeddings (B, D).

    Raises:
        ConfigError: The backbone or the projector gives another shape.
    """
    rows = _pool(features)
    if projector is not None:
        rows = _pool(projector((rows[:, :, None, None],)))
    return rows


def feature_map(features, stage: int, owner: str) -> Tensor:
    """Take the feature map of one stage from the output of a backbone.

    Args:
        features (Tensor | tuple): Output of an mmpretrain or mmseg backbone;
            a tensor counts as a single stage.
        stage (int): Place in the tuple, from its end if negative.
        owner (str): Whose backbone it is, for messages.

    Returns:
        Tensor: The map (B, C, H, W).

    Raises:
        ConfigError: There is no such stage, or it is no map.
    """
    if not isinstance(features, (tuple, list)):
        features = (features,)
    if not -len(features) <= stage < len(features):
        raise ConfigError(
            f"There is no stage {stage} of the {owner}'s backbone: it returns "
            f'{len(features)} stage(s), counted from 0, or from -1 backwards. '
            f'Choose one of them, or set out_indices of model.{owner}.'
        )
    found = features[stage]
    if not torch.is_tensor(found) or found.ndim != 4:
        got = getattr(found, 'shape', type(found).__name__)
        raise ConfigError(
            f"Stage {stage} of the {owner}'s backbone is no feature map "
            f'(B, C, H, W), but {got}. A vision transformer gives maps of '
            f"its patch tokens with model.{owner}.out_type='featmap'."
        )
    return found


def _pool(features) -> Tensor:
    if isinstance(features, (tuple, list)):
        features = features[-1]
    if not torch.is_tensor(features) or not 2 <= features.ndim <= 4:
        got = getattr(features, 'shape', type(features).__name__)
        raise ConfigError(
            'An embedding needs features of shape (B, C), (B, L, C) or '
            f'(B, C, H, W), but got {got}. Choose another out_type or '
            'out_indices of the backbone.'
        )
    if features.ndim == 4:
        return features.mean(dim=(2, 3))
    return features.mean(dim=1) if features.ndim == 3 else features
