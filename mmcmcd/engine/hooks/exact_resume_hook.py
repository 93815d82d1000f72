import hashlib
import logging

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from ...datasets.seeded import (
    SeededSampler,
    can_be_seeded,
    derive_seed,
    seed_generators,
    seeded_loader,
)
from ...errors import CheckpointError
from ...registry import HOOKS
from ..unwrapped import unwrapped_model

_META_KEY = 'exact_resume'
_STATES_KEY = 'states_of_processes'
_OR_ELSE = (
    'or start a new run from its weights: load_from=CHECKPOINT without '
    '--resume.'
)
# What a seed is for.
_SAMPLES, _STEPS, _VALIDATIONS = 0, 1, 2


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Let a resumed run go on as if it had never stopped, bit for bit.

    mmengine's checkpoints hold no state of random generators, and could not:
    those of loader workers are ahead of the training by as many samples as
    have been prefetched. Here nothing depends on such a state. Every sample
    is drawn with a seed made of the run's seed, the process and the sample's
    place in training (see :mod:`mmcmcd.datasets.seeded`), and every step, of
    validations, too, with one of its own. So a run resumes exactly at any
    iteration, and with another number of loader workers.

    Checkpoints hold what has to be the same then (``meta['exact_resume']``),
    and gradients that wait for those of further iterations
    (``accumulative_counts``). In distributed training each process has such
    gradients, and between two checkpoints statistics (BatchNorm's), of its
    own; they are in the checkpoint, too, if an
    :class:`AtomicCheckpointHook` writes it.

    A run resumes with the number of processes that it had, and no other: what
    a process sees, the learning rate and the length of an epoch depend on it.

    What torch computes is the same only for the same version, machine and
    number of threads; on a GPU set ``randomness=dict(deterministic=True)``.

    Raises:
        CheckpointError: The run to resume had another number of processes,
            batch size or number of samples.
    """

    # After EMAHook, which swaps the weights of a checkpoint.
    priority = 'LOW'

    def __init__(self):
        self._resumed = None
        self._gradients = {}
        self._states = None

    def before_train(self, runner):
        """Seed the samples, and bring back the gradients that wait.

        Args:
            runner (Runner): The runner.
        """
        self._seed_samples(runner)
        for name, parameter in unwrapped_model(runner).named_parameters():
            if name in self._gradients:
                parameter.grad = self._gradients.pop(name).to(parameter)

    def _seed_samples(self, runner):
        loop = runner.train_loop
        loader = loop.dataloader
        if isinstance(loader.sampler, SeededSampler):
            return
        if not can_be_seeded(loader):
            print_log(
                'ExactResumeHook: samples of this data loader are not looked '
                'up by index, so that they cannot be seeded. A resumed run '
                'will differ.',
                logger='current',
                level=logging.WARNING,
            )
            return
        sampler = loader.sampler
        if self._resumed and self._resumed.get('sampler_seed') is not None:
            sampler.seed = self._resumed['sampler_seed']
        if hasattr(sampler, '_indices_of_rank'):
            # A loop that looked ahead must not have moved it on.
            sampler.indices = sampler._indices_of_rank()
        key = runner.seed, _SAMPLES, get_rank()
        loop.dataloader = seeded_loader(loader, key)
        if isinstance(loop, IterBasedTrainLoop):
            iterator = type(loop.dataloader_iterator)
            loop.dataloader_iterator = iterator(loop.dataloader)

    def before_train_epoch(self, runner):
        """Tell the sampler the epoch, whether or not another hook does.

        Args:
            runner (Runner): The runner.
        """
        sampler = runner.train_loop.dataloader.sampler
        if isinstance(sampler, SeededSampler) and isinstance(
            runner.train_loop, EpochBasedTrainLoop
        ):
            sampler.set_epoch(runner.epoch)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Seed the step.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Of the epoch.
            data_batch (dict, optional): What the step is about to see.
        """
        # As mmengine: `runner.seed` has the rank in it where that is asked.
        seed_generators(
            derive_seed(runner.seed, _STEPS, runner.iter), devices=True
        )

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        """Seed the step of a validation.

        A loader draws a number when its workers start, hence, if they
        persist, not in those validations that are not the first one.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Of the validation.
            data_batch (dict, optional): What the step is about to see.
        """
        seed_generators(
            derive_seed(runner.seed, _VALIDATIONS, runner.iter, batch_idx),
            devices=True,
        )

    def prepare_checkpoint(self, runner):
        """Collect what differs between processes; all of them call this.

        Args:
            runner (Runner): The runner.
        """
        own = dict(unwrapped_model(runner).named_buffers())
        digests = {}
        if get_world_size() > 1:
            digests = {name: _sha256(value) for name, value in own.items()}
        first = all_gather_object(digests)[0]
        state = dict(
            buffers={
                name: own[name].detach().cpu()
                for name, digest in digests.items()
                if digest != first.get(name)
            },
            gradients=_waiting_gradients(runner),
        )
        self._states = all_gather_object(state)

    def before_save_checkpoint(self, runner, checkpoint):
        """Put into a checkpoint what an exact resume needs.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What will be saved; it is changed.
        """
        checkpoint.setdefault('meta', {})[_META_KEY] = _describe(runner)
        if self._states is not None:
            checkpoint[_STATES_KEY], self._states = self._states, None

    def after_load_checkpoint(self, runner, checkpoint):
        """Compare the run to resume with this one.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was read; this process's own statistics
                take the place of the first one's.

        Raises:
            CheckpointError: See the class.
        """
        states = checkpoint.pop(_STATES_KEY, None)
        if not runner._resume:
            return
        stored = checkpoint.get('meta', {}).get(_META_KEY)
        if stored is None:
            print_log(
                'The checkpoint was written without ExactResumeHook: '
                'training goes on, but not exactly as it would have.',
                logger='current',
                level=logging.WARNING,
            )
            return
        _compare(stored, _describe(runner))
        self._resumed = stored
        if states is not None:
            state = states[get_rank()]
            checkpoint['state_dict'].update(state['buffers'])
            self._gradients = dict(state['gradients'])
            if self._gradients:
                runner.logger.info(
                    'Gradients that waited for those of further iterations '
                    'are restored: none is lost.'
                )
        elif get_world_size() > 1:
            print_log(
                'The checkpoint has the statistics of one process alone, so '
                'that training goes on almost as it would have. '
                "default_hooks.checkpoint=dict(type='mmcmcd."
                "AtomicCheckpointHook') stores those of all.",
                logger='current',
                level=logging.WARNING,
            )


def _describe(runner):
    """What has to be the same in the run that goes on."""
    loader = runner.train_dataloader
    return dict(
        world_size=get_world_size(),
        batch_size=getattr(loader.batch_sampler, 'batch_size', None),
        num_samples=len(loader.dataset),
        sampler_seed=getattr(loader.sampler, 'seed', None),
    )


def _compare(stored, present):
    if stored['world_size'] != present['world_size']:
        raise CheckpointError(
            f'the run to resume had {_processes(stored)} of batch size '
            f'{stored["batch_size"]}, this one has {_processes(present)} of '
            f'batch size {present["batch_size"]}. What a process sees, the '
            'length of an epoch and the learning rate depend on it: resume '
            f'with {_processes(stored)}, {_OR_ELSE}'
        )
    names = dict(
        batch_size='train_dataloader.batch_size',
        num_samples='samples in the training set',
    )
    changed = [
        f'{text}: {stored[name]} then, {present[name]} now'
        for name, text in names.items()
        if stored[name] != present[name]
    ]
    if changed:
        raise CheckpointError(
            f'the run to resume saw other data ({"; ".join(changed)}). '
            f'Resume with those of that run, {_OR_ELSE}'
        )


def _processes(described):
    number = described['world_size']
    return f'{number} process{"es" if number > 1 else ""}'


def _waiting_gradients(runner):
    """Gradients that an update still waits for, by parameter."""
    if getattr(runner.optim_wrapper, '_accumulative_counts', 1) == 1:
        return {}
    return {
        name: parameter.grad.detach().cpu()
        for name, parameter in unwrapped_model(runner).named_parameters()
        if parameter.grad is not None
    }


def _sha256(value):
    flat = value.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy()).hexdigest()
