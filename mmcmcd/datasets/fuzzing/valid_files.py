"""Small valid files of every kind that is read."""

import csv
import io
import json

import cv2
import numpy as np
from PIL import Image


def make_seeds():
    """Make one file of every kind; needs soundfile and h5py.

    Returns:
        dict[str, bytes]: Content by name; what is before the first dot says
        which loaders get it.
    """
    import soundfile

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    rgb = cv2.resize(noise, (32, 24), interpolation=cv2.INTER_CUBIC)
    depth = rng.integers(500, 9000, (24, 32), dtype=np.uint16)
    ink = np.full((24, 32), 255, np.uint8)
    ink[8:12, 4:28] = 0
    metres = (depth / 1000).astype(np.float32)
    seeds = {
        f'image.{kind}': _encode(kind, rgb)
        for kind in ('jpg', 'png', 'bmp', 'tiff', 'webp')
    }
    seeds.update(
        {
            'image.progressive.jpg': _encode(
                'jpg', rgb, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
            ),
            'image.depth8.png': _encode('png', (depth >> 6).astype(np.uint8)),
            'image.depth16.png': _encode('png', depth),
            'image.depth16.tiff': _encode('tiff', depth),
            'image.float.tiff': _encode('tiff', metres),
            'image.depth16.npy': _npy(depth),
            'image.float.npy': _npy(metres),
            'image.sketch.png': _encode('png', ink),
            'image.clear.png': _clear_sketch(ink),
            'array.series.npy': _npy(rng.normal(size=(20, 6))),
            'array.series.csv': _table(rng.normal(size=(20, 3))),
            'archive.npz': _npz(
                series=rng.normal(size=(20, 6)),
                images=np.stack([rgb[..., 0]] * 3),
            ),
            'archive.h5': _hdf5(rng.normal(size=(20, 6)), rgb[..., 0]),
        }
    )
    tone = np.sin(np.arange(2000) / 9)
    for kind, subtype in (
        ('wav', 'PCM_16'),
        ('wav', 'FLOAT'),
        ('flac', 'PCM_16'),
    ):
        file = io.BytesIO()
        soundfile.write(file, 0.5 * tone, 8000, subtype, format=kind.upper())
        seeds[f'sound.{subtype.lower()}.{kind}'] = file.getvalue()
    rows = [
        dict(
            source=f'{i}.png',
            target=f'{i}.png',
            pair_id=f'k{i}',
            group_id=f'g{i % 2}',
            label=str(i % 2),
            seg_map=f'{i}.png',
        )
        for i in range(4)
    ]
    seeds['list.csv'] = _csv(rows)
    seeds['list.json'] = json.dumps(
        dict(metainfo=dict(classes=['a', 'b']), data_list=rows)
    ).encode()
    seeds['list.txt'] = b'0.png\t0.png\n1.png\t1.png\n2.png\t2.png\n'
    return seeds


def _encode(kind, image, flags=()):
    return cv2.imencode(f'.{kind}', image, flags)[1].tobytes()


def _clear_sketch(ink):
    file = io.BytesIO()
    Image.fromarray(np.stack([ink] * 3 + [255 - ink], -1)).save(file, 'PNG')
    return file.getvalue()


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _hdf5(series, image):
    import h5py

    file = io.BytesIO()
    with h5py.File(file, 'w') as archive:
        archive['group/series'] = series
        archive['alias'] = h5py.SoftLink('/group/series')
        archive.create_dataset(
            'images',
            data=np.stack([image] * 3),
            chunks=True,
            compression='gzip',
        )
    return file.getvalue()


def _table(values):
    file = io.StringIO()
    np.savetxt(file, values, delimiter=',', header='x,y,z', comments='')
    return file.getvalue().encode()


def _csv(rows):
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()
