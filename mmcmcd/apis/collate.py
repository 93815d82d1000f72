"""What torch says about a batch that cannot be stacked, in our words."""

from ..errors import PairConfigError


class NamedCollate:
    """Collate a batch; say whose shapes differ if it cannot be stacked.

    Args:
        collate (callable): Of the data loader.

    Raises:
        PairConfigError: Inputs of the batch differ in shape.
    """

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, batch):
        """Collate ``batch``, a list of packed samples."""
        try:
            return self.collate(batch)
        except RuntimeError:
            for name, shapes in _shapes(batch).items():
                if len(shapes) > 1:
                    raise PairConfigError(_message(name, shapes)) from None
            raise


def _message(name, shapes):
    some = ' and '.join(map(str, sorted(shapes)[:3]))
    more = f' and {len(shapes) - 3} more' if len(shapes) > 3 else ''
    return (
        f'A batch cannot be stacked: {name} has the shapes {some}{more}. '
        'Before packing, bring arrays to one length by mmcmcd.ResampleArray '
        'or mmcmcd.CenterTimeCrop (in (C, T) the time is last), images to '
        'one size by Resize.'
    )


def _shapes(batch):
    """All shapes of the inputs, by the name of a side or view."""
    found = {}
    for sample in batch:
        inputs = sample['inputs']
        if isinstance(inputs, dict):
            named = {f'side {side!r}': x for side, x in inputs.items()}
        elif isinstance(inputs, (list, tuple)):
            named = {f'view {i}': x for i, x in enumerate(inputs)}
        else:
            named = dict(img=inputs)
        for name, tensor in named.items():
            found.setdefault(name, set()).add(tuple(tensor.shape))
    return found
