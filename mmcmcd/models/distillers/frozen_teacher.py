import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import embed, load_backbone_strict, state_hash
from mmcmcd.registry import MODELS

from .gradient_cache import Features, extract_in_chunks


class FrozenTeacher:
    """A teacher whose weights are really loaded and can never change.

    It is deliberately no ``nn.Module``: held by the distiller outside the
    module tree, it is absent from ``parameters()`` (so from optimizers, EMA
    and DDP), from ``state_dict()`` (so from checkpoints) and from
    ``train()`` (so always in eval mode, dropout and drop-path too).

    Args:
        backbone (dict): Config of a backbone with
            ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)``.
        projector (dict, optional): Config of a neck with its own
            ``init_cfg``, such as the neck of the teacher's SimCLR
            pre-training (``prefix='neck.'``).
        places (dict[str, str], optional): Where the model's config has the
            two, by ``teacher`` and ``teacher_projector``, for messages.
            Defaults to None: under those names.
    """

    def __init__(
        self,
        backbone: dict,
        projector: dict | None = None,
        places: dict[str, str] | None = None,
    ) -> None:
        self._init_cfgs = {}
        self._places = places or {}
        parts = {}
        for name, cfg in dict(
            teacher=backbone, teacher_projector=projector
        ).items():
            if cfg is None:
                continue
            cfg = copy.deepcopy(cfg)
            self._init_cfgs[name] = cfg.pop('init_cfg', None)
            parts[name] = MODELS.build(cfg)
        self.module = nn.ModuleDict(parts)
        self.module.requires_grad_(False)
        self.module.eval()
        for name, part in self.module.items():
            self._check_init_cfg(
                self._place(name), part, self._init_cfgs[name]
            )
        self._loaded = False

    def _place(self, name):
        return self._places.get(name, name)

    @staticmethod
    def _check_init_cfg(name, part, init_cfg):
        if not part.state_dict():
            return
        if (
            not init_cfg
            or init_cfg.get('type') != 'Pretrained'
            or not (init_cfg.get('checkpoint'))
        ):
            raise ConfigError(
                f'{name} has no weights: a random teacher teaches nothing. '
                f"Set model.{name}.init_cfg=dict(type='Pretrained', "
                "checkpoint='...', prefix='backbone.'), where the checkpoint "
                'is an own SimCLR or MoCo run (configs/pretrain), an '
                "mmpretrain zoo file, or 'torchvision://resnet50' (without "
                f'prefix). Got init_cfg={init_cfg}.'
            )

    def load(self) -> None:
        """Load the weights strictly, once.

        Raises:
            CheckpointError: The file is missing, partial, has another prefix
                or is of another architecture.
        """
        if self._loaded:
            return
        for name, part in self.module.items():
            init_cfg = self._init_cfgs[name]
            if part.state_dict():
                load_backbone_strict(
                    part,
                    init_cfg['checkpoint'],
                    prefix=init_cfg.get('prefix') or '',
                    role=self._place(name),
                )
        self._loaded = True

    def apply_to_tensors(self, fn) -> None:
        """Apply ``fn`` (a move of device or a cast) to all tensors."""
        self.module._apply(fn)

    def state_hash(self) -> str:
        """Return the sha256 of all weights and statistics."""
        return state_hash(self.module)

    def __call__(
        self, images: Tensor, chunk_size: int | None = None
    ) -> Tensor:
        """Embed source images.

        Args:
            images (Tensor): Preprocessed images (B, C, H, W).
            chunk_size (int, optional): How many pass the backbone at once.
                Defaults to None: all.

        Returns:
            Tensor: Embeddings (B, D), without gradient.
        """
        return self.extract(images, chunk_size).rows

    @torch.no_grad()
    def extract(
        self,
        images: Tensor,
        chunk_size: int | None = None,
        stages: Iterable[int] = (),
    ) -> Features:
        """Embed source images, and keep maps of the same forward pass.

        Args:
            images (Tensor): Preprocessed images (B, C, H, W).
            chunk_size (int, optional): As in :meth:`__call__`.
            stages (Iterable[int]): Stages whose maps are kept, before any
                projector. Defaults to none.

        Returns:
            Features: Without gradient.
        """
        self.load()
        projector = dict(self.module.items()).get('teacher_projector')
        rows, maps = extract_in_chunks(
            self.module['teacher'],
            images,
            chunk_size,
            stages,
            self._place('teacher'),
        )
        return Features(embed(rows, projector), maps)


class FrozenTeachers(Mapping):
    """Frozen teachers by name, that are loaded, moved and checked as one.

    Args:
        teachers (dict[str, FrozenTeacher]): One or more.
    """

    def __init__(self, teachers: dict[str, FrozenTeacher]) -> None:
        self._teachers = dict(teachers)
        self.module = nn.ModuleDict(
            {name: teacher.module for name, teacher in teachers.items()}
        ).eval()

    def __getitem__(self, name: str) -> FrozenTeacher:
        return self._teachers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._teachers)

    def __len__(self) -> int:
        return len(self._teachers)

    def load(self) -> None:
        """See :meth:`FrozenTeacher.load`."""
        for teacher in self.values():
            teacher.load()

    def apply_to_tensors(self, fn) -> None:
        """See :meth:`FrozenTeacher.apply_to_tensors`."""
        self.module._apply(fn)

    def state_hash(self) -> str:
        """Return the hash of a single teacher, or one of all their hashes.

        The order of the teachers does not matter.
        """
        hashes = {name: each.state_hash() for name, each in self.items()}
        if len(hashes) == 1:
            return next(iter(hashes.values()))
        lines = [f'{name}|{own}\n' for name, own in sorted(hashes.items())]
        return hashlib.sha256(''.join(lines).encode()).hexdigest()
