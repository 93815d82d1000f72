import json
import math
import os.path as osp

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from ...atomic_files import write_text
from ...errors import ConfigError, NonFiniteLossError
from ...registry import HOOKS

_COUNT_KEY = 'skipped_steps'
_SAMPLES_SHOWN = 3


@HOOKS.register_module()
class NonFiniteGuardHook(Hook):
    """No loss or gradient that is NaN or infinite reaches the weights.

    It looks between the backward pass and the optimizer's step, with any
    model and any ``OptimWrapper``. By default training stops there, and says
    at which iteration, by which pairs and files, and which part of the loss
    it was. With ``max_skipped`` so many steps of a run may be left out
    instead: weights, optimizer, statistics (BatchNorm's and others), queue and
    momentum student are then as before the step, and the log has a warning
    with the same facts and the count. Iterations and schedules count on.
    ``non_finite_iter_<n>.json`` in the work directory has all pairs of the
    batch, of each process that has a part in it.

    Processes of a distributed run stop or skip together. What is infinite in
    float16 because of a large loss scale alone is left to the scaler of
    ``AmpOptimWrapper``, which skips such steps by itself.

    Args:
        max_skipped (int): Steps that may be left out in a run, those before
            a resume included. Defaults to 0: stop at the first.

    Raises:
        NonFiniteLossError: One more step than that was not finite.
    """

    priority = 'HIGH'

    def __init__(self, max_skipped=0):
        if not isinstance(max_skipped, int) or max_skipped < 0:
            raise ConfigError(
                'NonFiniteGuardHook: max_skipped must be an integer of 0 or '
                f'more, got {max_skipped!r}.'
            )
        self.max_skipped = max_skipped
        self._loss_is_finite = True
        self._parts = {}
        self._batch = None
        self._skips = False
        self._watched = []

    def before_train(self, runner):
        """Step between the loss and the optimizer.

        Args:
            runner (Runner): The runner.

        Raises:
            ConfigError: The run has several optimizers.
        """
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper):
            raise ConfigError(
                'NonFiniteGuardHook watches one OptimWrapper, but the run has '
                f'a {type(wrapper).__name__}. Leave the hook out.'
            )
        model = _model(runner)
        self._watch_losses(model)
        self._watch_updates(runner, wrapper)
        if self.max_skipped:
            self._state = _State(model)

    def after_train(self, runner):
        """Step aside.

        Args:
            runner (Runner): The runner.
        """
        for owner, name, method in self._watched:
            setattr(owner, name, method)
        self._watched = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Remember what the step is about to see.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Of the epoch.
            data_batch (dict, optional): For messages.
        """
        self._batch = data_batch
        if self.max_skipped:
            self._state.remember()

    def after_train_iter(self, runner, batch_idx, data_batch=None, **_):
        """Take back what a skipped step left in the model.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Of the epoch.
            data_batch (dict, optional): Of the step.
            **_ (dict): The outputs of the step.
        """
        self._batch, self._parts = None, {}
        if self._skips:
            self._skips = False
            self._state.restore()

    def _watch_losses(self, model):
        parse_losses = model.parse_losses

        def watched(losses):
            total, parts = parse_losses(losses)
            self._parts = parts
            return total, parts

        self._watch(model, 'parse_losses', watched)

    def _watch_updates(self, runner, wrapper):
        update_params, step = wrapper.update_params, wrapper.step

        def watched_update(loss, *args, **kwargs):
            self._loss_is_finite = bool(torch.isfinite(loss.detach()).all())
            if not self._loss_is_finite:
                # So that gradients are not finite in any process, whatever
                # part of the loss has a gradient.
                loss = loss * math.nan
            update_params(loss, *args, **kwargs)

        def watched_step(**kwargs):
            if _are_finite(wrapper) or not self._is_a_fault(wrapper):
                step(**kwargs)
            else:
                self._fault(runner)

        # Schedules look at this to see that steps are counted.
        watched_step._with_counter = getattr(step, '_with_counter', False)
        self._watch(wrapper, 'update_params', watched_update)
        self._watch(wrapper, 'step', watched_step)

    def _watch(self, owner, name, watched):
        self._watched.append((owner, name, getattr(owner, name)))
        setattr(owner, name, watched)

    def _is_a_fault(self, wrapper):
        """Whether it is more than a loss scale that is too large.

        All processes come here or none, for they have the same gradients.
        """
        if not isinstance(wrapper, AmpOptimWrapper):
            return True
        finite = torch.tensor(float(self._loss_is_finite))
        all_reduce(finite, 'min')
        return not finite

    def _fault(self, runner):
        hub = runner.message_hub
        count = hub.runtime_info.get(_COUNT_KEY, 0) + 1
        facts = self._describe(runner)
        if count > self.max_skipped:
            skipped = (
                f'{count - 1} such steps were skipped before '
                f'(max_skipped={self.max_skipped}). '
                if self.max_skipped
                else ''
            )
            raise NonFiniteLossError(
                f'{facts} The weights are as before this step. {skipped}Look '
                'at these pairs (tools/misc/browse_dataset.py), lower the '
                'learning rate, clip gradients (optim_wrapper.clip_grad), or '
                'leave out a few such steps: NonFiniteGuardHook(max_skipped='
                'N).'
            )
        hub.update_info(_COUNT_KEY, count)
        self._skips = True
        runner.logger.warning(
            f'{facts} The step was skipped, the {_ordinal(count)} of at most '
            f'{self.max_skipped}.'
        )

    def _describe(self, runner):
        parts = ', '.join(
            f'{name}={float(value):.4g}' for name, value in self._parts.items()
        )
        if self._loss_is_finite:
            what = 'Gradients are'
            if get_world_size() > 1:
                what = 'Gradients, of this process or of another, are'
            what = f'{what} not finite, the loss of this process is'
        else:
            what = 'The loss is not finite'
        samples, broken = _samples(self._batch)
        path = self._write(runner, samples, broken)
        return (
            f'Iteration {runner.iter + 1}: {what} ({parts}). '
            f'{_name(samples, broken)} All of the batch: {path}.'
        )

    def _write(self, runner, samples, broken):
        rank = f'_rank_{get_rank()}' if get_world_size() > 1 else ''
        path = osp.join(
            runner.work_dir, f'non_finite_iter_{runner.iter + 1}{rank}.json'
        )
        content = dict(
            iteration=runner.iter + 1,
            epoch=runner.epoch + 1,
            rank=get_rank(),
            losses={k: float(v) for k, v in self._parts.items()},
            inputs_not_finite=broken,
            samples=samples,
        )
        write_text(path, json.dumps(content, indent=1, default=str))
        return path


class _State:
    """What a step changes beside weights, to take it back."""

    def __init__(self, model):
        self._queues = [
            module
            for module in model.modules()
            if hasattr(module, 'forget_last')
        ]
        own = {id(b) for queue in self._queues for b in queue.buffers()}
        self._live = [b for b in model.buffers() if id(b) not in own]
        average = getattr(model, 'momentum_student', None)
        if average is not None:
            self._live += [p.detach() for p in average.parameters()]
        self._kept = [tensor.clone() for tensor in self._live]

    @torch.no_grad()
    def remember(self):
        torch._foreach_copy_(self._kept, self._live)

    @torch.no_grad()
    def restore(self):
        torch._foreach_copy_(self._live, self._kept)
        for queue in self._queues:
            queue.forget_last()


def _are_finite(wrapper):
    """Whether all gradients are."""
    gradients = [
        parameter.grad
        for group in wrapper.param_groups
        for parameter in group['params']
        if parameter.grad is not None
    ]
    if not gradients:
        return True
    # Of NaN the maximum norm is NaN; unlike others it cannot overflow.
    norms = torch._foreach_norm(gradients, math.inf)
    return bool(torch.isfinite(torch.stack(norms)).all())


def _samples(batch):
    """What is known of the samples, and which have inputs that are not finite.

    Returns:
        tuple[list[dict], list[int]]: Pair ids and paths of each sample, and
        the places of those with NaN or infinity in an input.
    """
    if not isinstance(batch, dict):
        return [], []
    samples = [
        {
            key: value
            for key, value in getattr(sample, 'metainfo', {}).items()
            if key == 'pair_id' or key.endswith('_path')
        }
        for sample in batch.get('data_samples') or ()
    ]
    broken = set()
    for images in _inputs(batch.get('inputs')):
        for place, image in enumerate(images):
            if torch.is_floating_point(image) and not image.isfinite().all():
                broken.add(place)
    return samples, sorted(broken)


def _inputs(inputs):
    """The inputs of a batch, one list (or tensor) of images a side."""
    if isinstance(inputs, dict):
        return list(inputs.values())
    views = isinstance(inputs, (list, tuple)) and inputs
    if views and torch.is_tensor(inputs[0]) and inputs[0].dim() == 4:
        return inputs
    return [] if inputs is None else [inputs]


def _name(samples, broken):
    """Name the samples that are to blame, or else the first ones."""
    if broken:
        what = f'The inputs of {len(broken)} samples are not finite'
        named = [samples[i] for i in broken if i < len(samples)]
    else:
        what, named = 'All inputs are finite; its batch', samples
    texts = []
    for sample in named[:_SAMPLES_SHOWN]:
        paths = ', '.join(str(v) for k, v in sample.items() if k != 'pair_id')
        texts.append(f'{sample.get("pair_id", "")} ({paths})'.strip())
    more = len(named) - _SAMPLES_SHOWN
    if more > 0:
        texts.append(f'and {more} more')
    return f'{what}: {"; ".join(texts) or "without names"}.'


def _ordinal(number):
    ends = {1: 'st', 2: 'nd', 3: 'rd'}
    teen = 10 < number % 100 < 20
    return f'{number}{"th" if teen else ends.get(number % 10, "th")}'


def _model(runner):
    model = runner.model
    return model.module if is_model_wrapper(model) else model
