import json
import math
import os.path as osp

import torch
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    get_rank,
    get_world_size,
)
from mmengine.hooks import Hook
from mmengine.model import BaseAveragedModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict

from ...atomic_files import write_text
from ...errors import ConfigError, NonFiniteLossError
from ...registry import HOOKS
from ..unwrapped import unwrapped_model

_COUNT_KEY = 'skipped_steps'
_LEFT_OUT_KEY = 'update_left_out'
_SAMPLES_SHOWN = 3
_PROCESSES_SHOWN = 2


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
    Where gradients of several iterations are accumulated, that iteration
    leaves no trace, and the update that it is a part of is left out.
    ``non_finite_iter_<n>.json`` in the work directory has all pairs of the
    batch, of each process.

    Processes of a distributed run stop or skip together: each step they
    reduce two numbers. What is infinite in float16 because of a large loss
    scale alone is left to the scaler of ``AmpOptimWrapper``, which skips such
    steps by itself.

    Args:
        max_skipped (int): Steps that may be left out in a run, those before
            a resume included. Defaults to 0: stop at the first.

    Raises:
        NonFiniteLossError: One more step than that was not finite.
    """

    priority = 'HIGH'

    def __init__(self, max_skipped=0):
        if (
            not isinstance(max_skipped, int)
            or isinstance(max_skipped, bool)
            or max_skipped < 0
        ):
            raise ConfigError(
                'NonFiniteGuardHook: max_skipped must be an integer of 0 or '
                f'more, got {max_skipped!r}.'
            )
        self.max_skipped = max_skipped
        self._watched = []

    def before_train(self, runner):
        """Step between the loss and the optimizer.

        Args:
            runner (Runner): The runner.

        Raises:
            ConfigError: The run has several optimizers.
        """
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapperDict) or not isinstance(
            wrapper, OptimWrapper
        ):
            raise ConfigError(
                'NonFiniteGuardHook watches one OptimWrapper, but the run has '
                f'{type(wrapper).__name__}. Leave the hook out.'
            )
        # A training that an exception ended may be started again.
        self._step_aside()
        self._forget()
        self._stepped = self._skips = False
        model = unwrapped_model(runner)
        self._watch_losses(model)
        self._watch_updates(runner, wrapper)
        if self.max_skipped:
            self._state = _State(model)

    def after_train(self, runner):
        """Step aside.

        Args:
            runner (Runner): The runner.
        """
        self._step_aside()

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
        self._forget()
        if self._skips:
            self._skips = False
            self._state.restore()

    def _forget(self):
        # A model may step without a word about its loss.
        self._loss = torch.zeros(())
        self._parts, self._batch = {}, None

    def _watch_losses(self, model):
        parse_losses = model.parse_losses

        def watched(losses):
            total, parts = parse_losses(losses)
            self._parts = parts
            return total, parts

        self._watch(model, 'parse_losses', watched)

    def _watch_updates(self, runner, wrapper):
        update_params, step = wrapper.update_params, wrapper.step
        hub = runner.message_hub

        def watched_update(loss, *args, **kwargs):
            self._loss, self._stepped = loss.detach(), False
            update_params(loss, *args, **kwargs)
            # Else the gradients wait for those of further iterations.
            if not self._stepped and self._is_a_fault(wrapper):
                self._fault(runner)
                wrapper.zero_grad()
                hub.update_info(_LEFT_OUT_KEY, True)

        def watched_step(**kwargs):
            self._stepped = True
            left_out = hub.pop_info(_LEFT_OUT_KEY, False)
            if self._is_a_fault(wrapper):
                self._fault(runner)
            elif not left_out:
                step(**kwargs)

        # Schedules look at this to see that steps are counted.
        watched_step._with_counter = getattr(step, '_with_counter', False)
        self._watch(wrapper, 'update_params', watched_update)
        self._watch(wrapper, 'step', watched_step)

    def _watch(self, owner, name, watched):
        self._watched.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, watched)

    def _step_aside(self):
        while self._watched:
            owner, name, own = self._watched.pop()
            if own is None:  # it was the class's
                delattr(owner, name)
            else:
                setattr(owner, name, own)

    def _is_a_fault(self, wrapper):
        """Whether this step is to be left out; processes agree on it."""
        # Squares are added ten times as fast as a maximum is found.
        loss, gradients = self._are_finite(wrapper, 2)
        if loss and not gradients:
            # They may have been too large where gradients are not.
            loss, gradients = self._are_finite(wrapper, math.inf)
        return not loss or not (gradients or _is_scaled(wrapper))

    def _are_finite(self, wrapper, order):
        """Whether losses and norms of gradients are, of all processes."""
        finite = torch.stack(
            [
                self._loss.isfinite().all(),
                _norms(wrapper, order, self._loss).isfinite().all(),
            ]
        ).float()
        all_reduce(finite, 'min')
        return finite.tolist()

    def _fault(self, runner):
        hub = runner.message_hub
        count = hub.runtime_info.get(_COUNT_KEY, 0) + 1
        facts = self._gather_facts(runner)
        if count > self.max_skipped:
            self._step_aside()
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

    def _gather_facts(self, runner):
        """What happened, by the processes to blame; the same for all."""
        own = self._describe(runner)
        if get_world_size() == 1:
            return own[1]
        everyone = all_gather_object(own)
        # Losses that compare all pairs are not finite in any process.
        most = max(blame for blame, _ in everyone)
        blamed = [
            f'[rank {rank}] {facts}'
            for rank, (blame, facts) in enumerate(everyone)
            if blame == most
        ]
        return ' '.join(blamed[:_PROCESSES_SHOWN])

    def _describe(self, runner):
        """How much this process is to blame, and what happened in it."""
        parts = ', '.join(
            f'{name}={_number(value):.4g}'
            for name, value in self._parts.items()
        )
        loss_is_finite = bool(self._loss.isfinite().all())
        what = (
            'Gradients are not finite, the loss is'
            if loss_is_finite
            else 'The loss is not finite'
        )
        samples, broken = _samples(self._batch)
        facts = (
            f'Iteration {runner.iter + 1}: {what} ({parts}). '
            f'{_name(samples, broken)} All of the batch: '
            f'{self._write(runner, samples, broken)}.'
        )
        return 2 * bool(broken) + (not loss_is_finite), facts

    def _write(self, runner, samples, broken):
        rank = f'_rank_{get_rank()}' if get_world_size() > 1 else ''
        path = osp.join(
            runner.work_dir, f'non_finite_iter_{runner.iter + 1}{rank}.json'
        )
        content = dict(
            iteration=runner.iter + 1,
            epoch=runner.epoch + 1,
            rank=get_rank(),
            losses={k: _json(v) for k, v in self._parts.items()},
            inputs_not_finite=broken,
            samples=samples,
        )
        try:
            write_text(path, json.dumps(content, indent=1, default=str))
        except OSError as error:
            # On a full disk processes must still stop or skip together.
            return f'{path} could not be written ({error})'
        return path


class _State:
    """What a step changes beside weights, to take it back."""

    def __init__(self, model):
        modules = list(model.modules())
        self._queues = [m for m in modules if hasattr(m, 'forget_last')]
        # They know their buffers as Python's numbers, too.
        self._readers = [m for m in modules if hasattr(m, 'read_buffers')]
        queued = {id(b) for queue in self._queues for b in queue.buffers()}
        self._live = [b for b in model.buffers() if id(b) not in queued]
        for module in modules:
            if isinstance(module, BaseAveragedModel):
                self._live += [p.detach() for p in module.parameters()]
        self._kept = [tensor.clone() for tensor in self._live]

    @torch.no_grad()
    def remember(self):
        torch._foreach_copy_(self._kept, self._live)

    @torch.no_grad()
    def restore(self):
        torch._foreach_copy_(self._live, self._kept)
        for module in self._readers:
            module.read_buffers()
        for queue in self._queues:
            queue.forget_last()


def _norms(wrapper, order, like):
    """Norms of all gradients, which show NaN and infinity."""
    found = (
        parameter.grad
        for group in wrapper.param_groups
        for parameter in group['params']
        if parameter.grad is not None
    )
    values = (g._values() if g.is_sparse else g for g in found)
    gradients = [tensor for tensor in values if tensor.numel()]
    if not gradients:
        return like.new_zeros(1)
    return torch.stack(torch._foreach_norm(gradients, order)).to(like.device)


def _is_scaled(wrapper):
    """Whether gradients may be infinite because of a loss scale alone."""
    return (
        isinstance(wrapper, AmpOptimWrapper)
        and wrapper.loss_scaler.get_scale() > 1
    )


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
            for key, value in sorted(getattr(sample, 'metainfo', {}).items())
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


def _number(value):
    return float(torch.as_tensor(value).detach())


def _json(value):
    """A number as JSON knows it, others as text."""
    number = _number(value)
    return number if math.isfinite(number) else str(number)


def _ordinal(number):
    ends = {1: 'st', 2: 'nd', 3: 'rd'}
    teen = 10 < number % 100 < 20
    return f'{number}{"th" if teen else ends.get(number % 10, "th")}'
