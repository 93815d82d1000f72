"""One run of a matrix: its config, its identity, its outcome."""

import copy
import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from mmengine.config import Config

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import file_sha256

from ..cli import load_config

# What a run leaves for those that need it.
OUTCOME = 'outcome.pth'
_DATA = 'MMCMCD_REALDATA'
# What a config of a teacher or a student need not have.
_OF_VALIDATION = (
    'val_dataloader',
    'test_dataloader',
    'default_hooks.knn',
)
_BUT = 'It also needs default_hooks.checkpoint and max_epochs or max_iters.'
_NEEDS = dict(
    teacher=f'A teacher trains any model. {_BUT}',
    student='A method with a teacher needs model.teacher.init_cfg; one '
    f'without has teacher=False. {_BUT}',
    score='downstream needs model.backbone.init_cfg=dict(type="Pretrained", '
    f'checkpoint=..., prefix="backbone."). {_BUT}',
)


@dataclass(frozen=True, eq=False)
class Job:
    """A training run.

    Two are the same if their configs, seeds and all that they need are.

    Attributes:
        kind (str): 'teacher', 'student', 'score', or 'file' for weights that
            are there already.
        title (str): What it is called in tables and logs.
        config (str): Its configuration; of a 'file', the checkpoint.
        options (dict): What replaces values of it, by dotted keys.
        seed (int): Of everything random.
        needs (tuple[Job]): The run, if any, whose weights it takes.
        hooks (tuple[dict]): Configs of more hooks.
    """

    kind: str
    title: str
    config: str
    options: dict
    seed: int
    needs: tuple['Job', ...] = ()
    hooks: tuple[dict, ...] = ()

    def __eq__(self, other):
        return self.fingerprint == other.fingerprint

    def __hash__(self):
        return hash(self.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the config and of those of all that it needs.

        Neither where the data lie nor the version of the code is part of it:
        the first says nothing, the second is in every record.
        """
        if self.kind == 'file':
            content = self.config.encode()
            if '://' not in self.config:
                content = file_sha256(self.config).encode()
            return hashlib.sha256(content).hexdigest()[:16]
        cfg = self.make_config([f'of {n.fingerprint}' for n in self.needs])
        text = json.dumps(cfg.to_dict(), sort_keys=True, default=repr)
        if root := os.environ.get(_DATA):
            text = text.replace(root, f'${_DATA}')
        text = f'{self.kind} {text}'
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def folder(self) -> str:
        """Where it goes, below the work directory of its matrix."""
        name = self.title.translate(str.maketrans(' /()', '_-..'))
        name = name.replace(',', '').replace('+', 'and')
        return os.path.join(f'{self.kind}s', f'{name}-{self.fingerprint}')

    def make_config(self, weights: list[str]) -> Config:
        """Make the config of the run.

        Args:
            weights (list[str]): Files of what it needs, in order.

        Returns:
            Config: Validated at its end alone, with checkpoints there alone:
            nothing is selected on validation.

        Raises:
            ConfigError: The config does not suit its part in a matrix.
        """
        try:
            return self._make_config(weights)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ConfigError(
                f"'{self.title}': config '{self.config}' does not suit "
                f'({error!r}). {_NEEDS[self.kind]}'
            ) from error

    def _make_config(self, weights):
        cfg = copy.deepcopy(_load(self.config, os.environ.get(_DATA)))
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=self.seed)
        # mmengine takes _delete_ out of what it merges.
        options = copy.deepcopy(self.options)
        cfg.merge_from_dict(
            {key: v for key, v in options.items() if self._concerns(cfg, key)}
        )
        if self.kind == 'score':
            init = cfg.model.backbone
            if weights:
                init.init_cfg.checkpoint = weights[0]
            else:
                init.init_cfg = None
        elif weights:
            cfg.model.teacher.init_cfg.checkpoint = weights[0]
        if self.hooks:
            cfg.custom_hooks = [*(cfg.get('custom_hooks') or ()), *self.hooks]
        loop = cfg.train_cfg
        length = loop.get('max_epochs') or loop.max_iters
        loop.val_interval = length + 1
        cfg.default_hooks.checkpoint.update(
            interval=length, save_last=True, max_keep_ckpts=1
        )
        return cfg

    def _concerns(self, cfg, key):
        """Whether an option is for a config; complain where it has no place.

        Of some methods nothing is validated.
        """
        *parents, _ = key.split('.')
        found = cfg
        for depth, part in enumerate(parents):
            if isinstance(found, (list, tuple)):
                found = found[int(part)]
                continue
            below, found = found, found.get(part)
            if found is not None:
                continue
            absent = '.'.join(parents[: depth + 1])
            if self.kind != 'score' and absent in _OF_VALIDATION:
                return False
            raise ConfigError(
                f"'{self.title}': option '{key}' has no place in "
                f"'{self.config}', which has no {absent!r} but "
                f'{sorted(map(str, below))}.'
            )
        return True


@dataclass(frozen=True)
class Cell:
    """One figure of a matrix.

    Attributes:
        score (Job): The run that measures it.
        split (str): 'tune' or 'test'.
        method (str): Its name.
        teacher (str): Its name; '' for none.
        setting (int): Index into the grid of the method.
        budget (str): Of labels.
        seed (int): Of the repetition.
        sweep (tuple): Name of the sweep and the value, or nothing.
    """

    score: Job
    split: str
    method: str
    teacher: str
    setting: int
    budget: str
    seed: int
    sweep: tuple = field(default=())

    @property
    def key(self) -> dict:
        """What tells it from the others, to be written into a file."""
        return dict(
            split=self.split,
            method=self.method,
            teacher=self.teacher,
            setting=self.setting,
            budget=self.budget,
            seed=self.seed,
            sweep=list(self.sweep),
        )


@lru_cache
def _load(path, data_root):
    # Configs have the place of the data in them.
    return load_config(path)
