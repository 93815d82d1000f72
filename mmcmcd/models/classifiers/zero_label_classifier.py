import copy
import logging
import math
from itertools import takewhile

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from mmcmcd.errors import CheckpointError, ConfigError
from mmcmcd.models.distillers import CrossModalDistiller
from mmcmcd.models.utils import (
    load_backbone_strict,
    read_checkpoint,
    read_state_dict,
)
from mmcmcd.registry import MODELS


@MODELS.register_module()
class ZeroLabelClassifier(CrossModalDistiller):
    """Classify the target with a head that was trained on the source.

    CMC and the cross form of CMD place the student's embeddings among the
    teacher's, so a classifier head on the teacher's features also works on
    the student's: no label of the target is needed.  The within form of CMD
    fixes the student's embeddings up to a rotation only, in which a head is
    at chance; it is refused.

    The losses compare directions, hence a student embedding is brought to
    the teacher's feature space by giving it the length that normalised
    features have, and undoing ``source_norm`` (this project's choice).

    Args:
        teacher_head (dict): Config of an mmpretrain head on the teacher's
            pooled features, with ``init_cfg=dict(type='Pretrained',
            checkpoint=..., prefix='head.')``: a classifier whose backbone
            is the frozen teacher.
        feature_norm (float, optional): Length of the teacher's features.
            Defaults to None: ``sqrt(D)``, which ``source_norm`` gives them;
            without ``source_norm`` it must be given.
        **kwargs: Those of the :class:`CrossModalDistiller` whose checkpoint
            is tested.

    Raises:
        ConfigError: No loss places the student in the teacher's space, or
            the teacher's features cannot be recovered.
    """

    def __init__(
        self,
        teacher_head: dict,
        feature_norm: float | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not self.places_student:
            raise _not_placed(
                f'the losses of the config ({kwargs.get("losses")})'
            )
        if kwargs.get('teacher_projector') is not None:
            raise ConfigError(
                "ZeroLabelClassifier: the student was placed in the teacher's "
                "projected space, but a head works on the backbone's "
                'features. Distil without teacher_projector.'
            )
        self.feature_norm = feature_norm
        self._require_invertible_norm()
        cfg = copy.deepcopy(teacher_head)
        self._head_init = cfg.pop('init_cfg', None) or {}
        if not self._head_init.get('checkpoint'):
            raise ConfigError(
                'teacher_head has no weights. Set model.teacher_head.init_cfg='
                "dict(type='Pretrained', checkpoint='...', prefix='head.'), "
                'where the checkpoint is a classifier of the source on the '
                'frozen teacher (a linear evaluation of it).'
            )
        # Like the teacher, it is no part of the tested checkpoint.
        self._frozen_head = (MODELS.build(cfg).requires_grad_(False).eval(),)
        self._head_loaded = False

    @property
    def teacher_head(self):
        """The teacher's classifier head; no part of the module tree."""
        return self._frozen_head[0]

    def _apply(self, fn, *args, **kwargs):
        self.teacher_head._apply(fn)
        return super()._apply(fn, *args, **kwargs)

    def predict(self, inputs: dict[str, Tensor], data_samples: list) -> list:
        """Embed both sides, and classify the target.

        Returns:
            list[DataSample]: The samples, with ``pred_score`` and
            ``pred_label`` set besides the embeddings.
        """
        self._load_head()
        samples = super().predict(inputs, data_samples)
        rows = torch.stack([s.target_embedding for s in samples])
        features = self.to_teacher_features(rows)
        return self.teacher_head.predict((features,), samples)

    def to_teacher_features(self, rows: Tensor) -> Tensor:
        """Bring student embeddings (B, D) to the teacher's features (B, D)."""
        length = self.feature_norm or math.sqrt(rows.shape[1])
        rows = length * F.normalize(rows.float(), dim=1)
        norm = self.source_norm
        if norm is None:
            return rows
        return rows * (norm.running_var + norm.eps).sqrt() + norm.running_mean

    def _load_from_state_dict(self, state_dict, prefix, metadata, *args):
        # The config may name other losses than those of the training.
        if not metadata.get('places_student', True):
            raise _not_placed('the losses that this checkpoint was trained by')
        super()._load_from_state_dict(state_dict, prefix, metadata, *args)

    def require_classes(self, classes) -> None:
        """Compare the classes of the head with those that are tested.

        Args:
            classes (Sequence[str] | None): Names, by label.

        Raises:
            CheckpointError: The head was trained on other classes, or on the
                same in another order.
        """
        checkpoint = self._head_init['checkpoint']
        meta = read_checkpoint(checkpoint, 'teacher_head').get('meta') or {}
        known = (meta.get('dataset_meta') or {}).get('classes')
        if classes is None or known is None:
            return
        known, classes = list(known), list(classes)
        if known != classes:
            pairs = zip(known, classes, strict=False)
            number = sum(1 for _ in takewhile(lambda p: p[0] == p[1], pairs))
            raise CheckpointError(
                f"teacher_head checkpoint '{checkpoint}' knows {len(known)} "
                f'classes, the test set has {len(classes)}, and label '
                f'{number} is {known[number : number + 1]} there, '
                f'{classes[number : number + 1]} here. Train the head on '
                'these classes in this order (metainfo.classes).'
            )

    def _require_invertible_norm(self):
        if self.source_norm is None:
            if self.feature_norm is None:
                raise ConfigError(
                    'ZeroLabelClassifier: without source_norm the length of '
                    "the teacher's features is unknown. Set "
                    'model.feature_norm to their mean length.'
                )
        elif getattr(self.source_norm, 'running_var', None) is None:
            raise ConfigError(
                'ZeroLabelClassifier can undo a source_norm with running '
                f'statistics (BN1d), but not {self.source_norm}.'
            )

    def _load_head(self):
        if self._head_loaded:
            return
        checkpoint = self._head_init['checkpoint']
        prefix = self._head_init.get('prefix') or ''
        head = self.teacher_head
        device = next(head.parameters()).device
        load_backbone_strict(
            head, checkpoint, prefix=prefix, role='teacher_head'
        )
        head.to(device)
        self._require_same_backbone(checkpoint)
        self._head_loaded = True

    def _require_same_backbone(self, checkpoint):
        """A head on other features, such as fine-tuned ones, would guess."""
        self.teacher.load()
        own = self.teacher.module['teacher'].state_dict()
        state = read_state_dict(checkpoint, role='teacher_head')
        found = {
            key: state[f'backbone.{key}']
            for key in own
            if f'backbone.{key}' in state
        }
        if not found:
            print_log(
                f"teacher_head: '{checkpoint}' holds no backbone, so that "
                'nobody can tell whether it was trained on this teacher.',
                logger='current',
                level=logging.WARNING,
            )
        changed = [
            key
            for key, value in found.items()
            if value.is_floating_point()
            and not torch.equal(value, own[key].cpu())
        ]
        if changed:
            raise CheckpointError(
                f"teacher_head checkpoint '{checkpoint}' was trained on "
                f'another backbone than the teacher: {len(changed)} of '
                f'{len(found)} tensors differ ({changed[0]}, ...). Train the '
                'head on the frozen teacher (linear evaluation: '
                'model.backbone.frozen_stages=4).'
            )


def _not_placed(losses):
    return ConfigError(
        f'ZeroLabelClassifier: {losses} do not place the student in the '
        "teacher's space. The within form of CMD is blind to any rotation of "
        'the student, so that the head of the teacher would guess. Distil '
        'with CMC (cmc=dict()) or the cross form of CMD (cmd=dict(form='
        "'cross'))."
    )
