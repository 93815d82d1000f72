import torch
from mmpretrain.models.selfsup.simclr import GatherLayer, SimCLR
from torch import Tensor
from torch.nn.functional import normalize

from mmcmcd.registry import MODELS


@MODELS.register_module()
class ArraySimCLR(SimCLR):
    """SimCLR of arrays of any shape: series, clips, spectrograms.

    mmpretrain's ``SimCLR`` takes images alone, because it reshapes its
    inputs to four axes. This one has the same parts, checkpoints and loss
    (NT-Xent, Chen et al., ICML 2020).

    Args:
        **kwargs: Those of mmpretrain's ``SimCLR``: ``backbone``, ``neck``,
            ``head``, ``data_preprocessor``, ``pretrained``, ``init_cfg``.
    """

    def loss(
        self, inputs: list[Tensor], data_samples: list, **kwargs
    ) -> dict[str, Tensor]:
        """Contrast two views of every sample with all other views.

        Args:
            inputs (list[Tensor]): Two views, each (B, C, ...).
            data_samples (list[DataSample]): Not used.
            **kwargs: Not used; as in mmpretrain.

        Returns:
            dict[str, Tensor]: ``loss``, a scalar.
        """
        rows = self.neck(self.backbone(torch.cat(inputs)))[0]
        views = [
            torch.cat(GatherLayer.apply(view))
            for view in normalize(rows).chunk(2)
        ]
        rows = torch.cat(views)  # (2N, D)
        similarity = rows @ rows.T
        count = len(rows)
        index = torch.arange(count, device=rows.device)
        partner = index.roll(count // 2)
        is_other = torch.ones_like(similarity, dtype=torch.bool)
        is_other[index, index] = False
        is_other[index, partner] = False
        return dict(
            loss=self.head.loss(
                similarity[index, partner][:, None],
                similarity[is_other].view(count, -1),
            )
        )
