import numpy as np
import pytest
import torch

from mmcmcd.signal import spec_augment


def spectrogram():
    return torch.arange(2.0 * 20 * 30).reshape(2, 20, 30) + 1


def test_masks_are_bands_and_stretches():
    original = spectrogram()
    widths = set()
    for seed in range(40):
        np.random.seed(seed)
        masked = spec_augment(original, 5, 0, value=-1.0)
        rows = (masked == -1).all(dim=2)
        assert torch.equal(rows[0], rows[1])
        assert torch.equal(masked == -1, rows[:, :, None].expand(-1, -1, 30))
        places = rows[0].nonzero().flatten()
        widths.add(len(places))
        if len(places):
            assert len(places) == places[-1] - places[0] + 1
    assert widths == set(range(6))
    assert torch.equal(original, spectrogram())


@pytest.mark.parametrize(('axis', 'name'), [(1, 'freq'), (2, 'time')])
def test_every_place_is_reached(axis, name):
    hit = torch.zeros(20 if axis == 1 else 30)
    np.random.seed(0)
    widest = dict(freq_mask=0, time_mask=0) | {f'{name}_mask': 4}
    for _ in range(200):
        masked = spec_augment(spectrogram(), **widest, value=0.0)
        hit += (masked == 0).all(dim=3 - axis)[0]
    assert (hit > 0).all()


def test_mean_takes_the_place():
    np.random.seed(3)
    original = spectrogram()
    masked = spec_augment(original, 0, 30, num_time=4)
    changed = masked[masked != original]
    assert len(changed)
    assert torch.allclose(changed, original.mean())


def test_wider_than_the_axis_and_seeded():
    results = []
    for _ in range(2):
        np.random.seed(7)
        results.append(spec_augment(spectrogram(), 999, 999, 2, 2))
    assert torch.equal(*results)
