"""A stand-in of UTD-MHAD: random movements, in its layout."""

import csv

import numpy as np

from mmcmcd.datasets.utd_mhad import ACTIONS

SUBJECTS = (1, 3, 5, 7)


def write_sample(root):
    """Write one short recording of every action by every subject."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    archives = dict(skeleton={}, inertial={}, depth12x60x80={})
    rows = []
    for label, action in enumerate(ACTIONS):
        for subject in SUBJECTS:
            key = f'a{label + 1:02d}_s{subject}_t1'
            rows.append((key, label, action, subject, 1))
            length = int(rng.integers(20, 30))
            moves = rng.normal(size=(length, 20, 3)).astype(np.float32)
            archives['skeleton'][key] = moves.cumsum(0) * 0.01
            archives['inertial'][key] = rng.normal(
                size=(2 * length, 6)
            ).astype(np.float32)
            archives['depth12x60x80'][key] = rng.integers(
                2000, 4000, (12, 60, 80), np.uint16
            )
    for name, arrays in archives.items():
        np.savez(root / f'{name}.npz', **arrays)
    with (root / 'index.csv').open('w', newline='') as file:
        table = csv.writer(file)
        table.writerow(('key', 'label', 'action', 'subject', 'trial'))
        table.writerows(rows)
