import logging
import sys
from collections.abc import Sequence

import torch
from mmengine.dist import (
    broadcast_object_list,
    collect_results,
    is_main_process,
)
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.utils import ProgressBar
from torch import Tensor

from mmcmcd.errors import ConfigError, DatasetError
from mmcmcd.evaluation.functional import check_knn, knn_predict
from mmcmcd.models.utils import embed
from mmcmcd.registry import HOOKS

from ..unwrapped import unwrapped_model

# A bank of fewer batches is embedded in silence.
_LONG = 20


@HOOKS.register_module()
class KNNHook(Hook):
    """Add the accuracy of nearest neighbours, ``knn/top1``, to the metrics.

    A validated (tested) sample gets the class for which its k nearest
    labelled neighbours vote, by cosine of backbone features: of the student
    for a distiller, of any stock classifier, too. No weight is trained. The
    labelled samples, the bank, are embedded anew each time, because the
    features change while training.

    ``save_best='knn/top1'`` and ``rule='greater'`` of a checkpoint hook
    choose the best checkpoint by it.

    Args:
        bank_dataloader (dict): Config of a data loader whose samples have a
            ``gt_label``; of the same kind (pairs, or single images) as the
            validated ones, with the transforms of a test. The sampler
            defaults to a ``DefaultSampler`` without shuffling, the
            ``collate_fn`` to ``default_collate``.
        k (int): Number of neighbours; of a bank that has fewer samples, all
            of them, with a warning. Defaults to 20.
        weights (str): ``'uniform'``, ``'distance'`` or ``'softmax'``, see
            :func:`mmcmcd.evaluation.functional.knn_votes`. Defaults to
            ``'softmax'``.
        temperature (float): Of ``'softmax'``. Defaults to 0.07.
        side (str): Which images of a pair the backbone sees; of several
            students, whose backbone it is. Defaults to 'target'.
        on (Sequence[str]): Of ``'val'`` and ``'test'``. Defaults to both.
        prefix (str): Of ``top1`` among the metrics; two of these hooks, for
            two students, need two. Defaults to 'knn'.

    Raises:
        ConfigError: Arguments are unknown, or do not suit bank or model.
        DatasetError: A sample has no class.
    """

    # Metrics are logged by the hooks of the next priority. The features are
    # those of EMAHook's weights, which are in place until after this hook.
    priority = 'HIGHEST'

    def __init__(
        self,
        bank_dataloader: dict,
        k: int = 20,
        weights: str = 'softmax',
        temperature: float = 0.07,
        side: str = 'target',
        on: Sequence[str] = ('val', 'test'),
        prefix: str = 'knn',
    ) -> None:
        self.on = {on} if isinstance(on, str) else set(on)
        if not self.on <= {'val', 'test'}:
            raise ConfigError(
                f"KNNHook: on={on!r}; expected 'val', 'test' or both."
            )
        self.bank_dataloader = dict(
            dict(
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate'),
            ),
            **bank_dataloader,
        )
        self.settings = dict(k=k, weights=weights, temperature=temperature)
        self.side = side
        self.prefix = prefix
        self._bank = None

    def before_train(self, runner) -> None:
        """Check the bank before an epoch is spent."""
        if 'val' in self.on and runner.val_loop is not None:
            self._start(runner, runner.val_dataloader)
            self._warn_of_more_labels(runner.train_dataloader.dataset)

    def before_val_epoch(self, runner) -> None:
        """Build and check the bank, and begin anew."""
        if 'val' in self.on:
            self._start(runner, runner.val_dataloader)

    def before_test_epoch(self, runner) -> None:
        """See :meth:`before_val_epoch`."""
        if 'test' in self.on:
            self._start(runner, runner.test_dataloader)

    def after_val_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ) -> None:
        """Embed the samples of one batch."""
        if 'val' in self.on:
            self._samples += self._embed(runner, data_batch)

    def after_test_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ) -> None:
        """See :meth:`after_val_iter`."""
        if 'test' in self.on:
            self._samples += self._embed(runner, data_batch)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Embed the bank and let it vote."""
        if 'val' in self.on:
            self._finish(runner, runner.val_dataloader, metrics)

    def after_test_epoch(self, runner, metrics=None) -> None:
        """See :meth:`after_val_epoch`."""
        if 'test' in self.on:
            self._finish(runner, runner.test_dataloader, metrics)

    def _start(self, runner, dataloader) -> None:
        if self._bank is None:
            # With a seed of its own it draws none from the run's generators.
            self._bank = runner.build_dataloader(self.bank_dataloader, seed=0)
        bank_size = len(self._bank.dataset)
        self._limit_k(bank_size)
        check_knn(**self.settings, bank_size=bank_size)
        names = [
            getattr(loader.dataset, 'metainfo', {}).get('classes')
            for loader in (self._bank, dataloader)
        ]
        if None not in names and list(names[0]) != list(names[1]):
            raise ConfigError(
                f'KNNHook: the bank has other classes ({len(names[0])}) than '
                f'the samples to classify ({len(names[1])}), or in another '
                'order. Give both data sets the same metainfo.classes.'
            )
        self._samples = []

    def _limit_k(self, bank_size: int) -> None:
        """This figure comes along; it must not stop what a run is about."""
        if 0 < bank_size < self.settings['k']:
            _warn(
                f'the bank has {bank_size} samples only: all of them vote, '
                f'not k={self.settings["k"]}.'
            )
            self.settings['k'] = bank_size

    def _warn_of_more_labels(self, trained) -> None:
        """Few labels are to be few for the neighbours, too."""
        drawn = getattr(trained, 'labels_per_class', None)
        bank_size = len(self._bank.dataset)
        if drawn is not None and bank_size > len(trained):
            _warn(
                f'knn/top1 uses labels that this run does not have: the bank '
                f'has {bank_size}, the training set {len(trained)}. Set '
                'default_hooks.knn.bank_dataloader.dataset.labels_per_class='
                f'{drawn} (and draw, likewise).'
            )

    @torch.no_grad()
    def _embed(self, runner, batch: dict) -> list[tuple[Tensor, int]]:
        """Return feature (D, ) and class of each sample of a batch."""
        model = unwrapped_model(runner)
        if not hasattr(model, 'extract_feat'):
            raise ConfigError(
                f'KNNHook needs a model with extract_feat, such as '
                'mmcmcd.CrossModalDistiller or an ImageClassifier; got '
                f'{type(model).__name__}. Remove the hook.'
            )
        data = model.data_preprocessor(batch, False)
        images = data['inputs']
        if isinstance(images, dict):
            if self.side not in images:
                raise ConfigError(
                    f"KNNHook: side='{self.side}' is not among the sides of "
                    f'the batch, {sorted(images)}.'
                )
            images = images[self.side]
        features = embed(self._backbone(model)(images)).float().cpu()
        # Pickled, a view would bring the whole batch along.
        rows = [row.clone() for row in features]
        labels = [_label(sample) for sample in data['data_samples']]
        return list(zip(rows, labels, strict=True))

    def _backbone(self, model):
        """What embeds the images: of several students, the side's."""
        students = getattr(model, 'students', None)
        if students is None:
            return model.extract_feat
        if self.side not in students:
            raise ConfigError(
                f"KNNHook: side='{self.side}' has no student; those of the "
                f'model see {sorted(students)}.'
            )
        return students[self.side]

    def _finish(self, runner, dataloader, metrics: dict) -> None:
        queries = _gather(self._samples, len(dataloader.dataset))
        bank = _gather(self._embed_bank(runner), len(self._bank.dataset))
        result = [None]
        if is_main_process():
            device = next(runner.model.parameters()).device
            sets = _stack(bank, device), _stack(queries, device)
            result = [self.score(*sets)]
        broadcast_object_list(result)
        if not metrics.keys().isdisjoint(result[0]):
            raise ConfigError(
                f'KNNHook: another one reports {sorted(result[0])}, too. Set '
                f"prefix='{self.side}_knn' in one of them."
            )
        metrics.update(result[0])
        self._samples = []

    def _embed_bank(self, runner) -> list[tuple[Tensor, int]]:
        bar = None
        if is_main_process() and len(self._bank) >= _LONG:
            print('Embedding the bank of KNNHook')
            bar = ProgressBar(len(self._bank), 30, file=sys.stdout)
        samples = []
        for batch in self._bank:
            samples += self._embed(runner, batch)
            if bar:
                bar.update()
        if bar:
            print()
        return samples

    def score(
        self, bank: tuple[Tensor, Tensor], queries: tuple[Tensor, Tensor]
    ) -> dict[str, float]:
        """Classify, and compare with the truth.

        Args:
            bank (tuple[Tensor, Tensor]): Features (M, D) and classes (M, ).
            queries (tuple[Tensor, Tensor]): Likewise, (N, D) and (N, ).

        Returns:
            dict[str, float]: What is added to the metrics.
        """
        features, labels = queries
        found = knn_predict(*bank, features, **self.settings)
        return {
            f'{self.prefix}/top1': 100
            * float((found == labels).double().mean())
        }


def _gather(samples: list, size: int) -> list | None:
    """Collect what all processes embedded, less the sampler's padding."""
    return collect_results(samples, size, 'cpu')


def _stack(samples: list, device) -> tuple[Tensor, Tensor]:
    features, labels = zip(*samples, strict=True)
    return torch.stack(features).to(device), torch.tensor(labels).to(device)


def _warn(message: str) -> None:
    print_log(f'KNNHook: {message}', logger='current', level=logging.WARNING)


def _label(sample) -> int:
    label = sample.get('gt_label')
    if label is None or label.numel() != 1:
        raise DatasetError(
            'KNNHook needs one class per sample, in the bank and among those '
            f'to classify, but {_name(sample)} has gt_label='
            f'{None if label is None else label.tolist()}. Give the data set '
            'labels (of pairs: a column label), or remove the hook.'
        )
    return int(label)


def _name(sample) -> str:
    keys = ('pair_id', 'img_path', 'sample_idx')
    name = next((sample.get(key) for key in keys if key in sample), None)
    return 'a sample' if name is None else f"'{name}'"
