"""All ways in which the package reads a file."""

import json
from pathlib import Path

import cv2
import numpy as np

from ..archives import list_arrays, read_array
from ..label_maps import read_label_map
from ..pair_audit import audit_pairs
from ..paired_dataset import PairedModalityDataset
from ..transforms import (
    LoadArray,
    LoadArrayRow,
    LoadAudio,
    LoadDepthFromFile,
    LoadImageStrict,
    LoadSketch,
)


class Reader:
    """Reads one file in all ways that there are for its kind.

    Args:
        root (Path): Empty folder to work in.
        seeds (dict[str, bytes]): Of :func:`make_seeds`.
    """

    def __init__(self, root, seeds):
        self.root = Path(root)
        (self.root / 'valid').mkdir(parents=True)
        for name, content in seeds.items():
            (self.root / 'valid' / name).write_bytes(content)
        good = np.full((24, 32, 3), 90, np.uint8)
        for side in ('rgb', 'depth', 'label'):
            (self.root / side).mkdir(parents=True)
        for i in range(4):
            for side, image in (
                ('rgb', good),
                ('depth', np.full((24, 32), 1000 + i, np.uint16)),
                ('label', np.full((24, 32), i, np.uint8)),
            ):
                path = self.root / side / f'{i}.png'
                cv2.imwrite(str(path), image)
        self.images = (
            LoadImageStrict(),
            LoadImageStrict(color_type='unchanged'),
            LoadImageStrict(imdecode_backend='pillow'),
            LoadDepthFromFile(depth_scale=1000.0),
            LoadSketch(on_inverted='keep', allow_blank=True),
        )
        self.sounds = (
            LoadAudio(8000, on_silent='keep'),
            LoadAudio(16000),
            LoadAudio(4000, pad='repeat'),
        )
        self.arrays = tuple(LoadArray(a, invalid=0.0) for a in ('TC', 'THW'))

    def ways(self, path, in_pair):
        """Yield functions, each of which reads the file.

        Args:
            path (Path): The file.
            in_pair (bool): Whether it is read in a set of pairs, too.

        Yields:
            callable: Takes nothing.
        """
        group = path.name.partition('.')[0]
        if group == 'list':
            yield lambda: self._train(ann_file=path.name)
            yield lambda: self._train(ann_file=path.name, strict=False)
            yield lambda: self._audit(ann_file=path.name)
            return
        loaders = dict(
            image=self.images, sound=self.sounds, array=self.arrays
        ).get(group, ())
        for loader in loaders:
            yield lambda loader=loader: loader(dict(img_path=str(path)))
        if group == 'image':
            yield lambda: read_label_map(str(path))
        elif group == 'sound':
            yield lambda: self.sounds[0](
                dict(img_path=str(path), segment=(0.05, 0.1))
            )
        elif group == 'archive':
            yield lambda: self._read_archive(str(path))
            yield lambda: LoadArrayRow()(dict(img_path=f'{path}/images/1'))
            for name in ('series', 'group/series', 'alias'):
                yield lambda name=name: self.arrays[0](
                    dict(img_path=f'{path}/{name}')
                )
        if in_pair:
            ann_file = self._list_pairs(path)
            sides = (self._load(path), self._load(path, side='target'))
            yield lambda: self._train(sides, ann_file=ann_file)
            yield lambda: self._audit(sides, ann_file=ann_file)

    @staticmethod
    def _read_archive(path):
        for name in list_arrays(path)[:8]:
            read_array(path, name)

    def _list_pairs(self, path):
        """A list with the file on either side of a pair, and a valid pair."""
        group, _, suffix = path.name.partition('.')
        number, _, name = suffix.partition('.')
        good = self.root / 'valid' / f'{group}.{name}'
        source, target = good, good
        if group == 'image':
            source = self.root / 'valid' / 'image.jpg'
            target = self.root / 'valid' / 'image.depth16.png'
        inner = dict(npz='/series', h5='/group/series').get(name, '')
        lines = [(path, target), (source, path), (source, target)]
        out = self.root / f'pairs.{number}.csv'
        rows = [f'{i},{a}{inner},{b}{inner}' for i, (a, b) in enumerate(lines)]
        out.write_text('\n'.join(['pair_id,source,target', *rows]))
        return out.name

    def _load(self, path, side='source'):
        """The loader of one side that suits a file, as config."""
        group = path.name.partition('.')[0]
        kinds = dict(
            sound=dict(type='mmcmcd.LoadAudio', sampling_rate=8000),
            array=dict(type='mmcmcd.LoadArray'),
            archive=dict(type='mmcmcd.LoadArray'),
        )
        image = (
            dict(type='mmcmcd.LoadImageStrict')
            if side == 'source'
            else dict(type='mmcmcd.LoadDepthFromFile', depth_scale=1000.0)
        )
        return dict(
            type='mmcmcd.OnSide',
            sides=side,
            transforms=[kinds.get(group, image)],
        )

    def _config(self, loaders, **kwargs):
        if loaders is None:
            loaders = [
                self._load(Path('image')),
                self._load(Path('image'), side='target'),
                dict(
                    type='mmcmcd.SharedGeometry',
                    transforms=[dict(type='mmcv.RandomFlip', prob=0.5)],
                ),
            ]
            kwargs['seg_map'] = dict(folder='label', suffix='.png')
        return dict(
            data_root=str(self.root),
            sides=dict(
                source=dict(folder='rgb', suffix='.png'),
                target=dict(folder='depth', suffix='.png'),
            ),
            pipeline=list(loaders),
            **kwargs,
        )

    def _train(self, loaders=None, **kwargs):
        """What training would get."""
        dataset = PairedModalityDataset(
            **self._config(loaders, **kwargs),
            on_unreadable='skip',
            max_skip_fraction=1.0,
            serialize_data=False,  # it would collect garbage every time
        )
        for index in range(min(len(dataset), 4)):
            item = dataset[index]
            for side in ('source', 'target'):
                if not np.isfinite(np.asarray(item[side]['img'])).all():
                    raise ArithmeticError(f'{side} is not finite')

    def _audit(self, loaders=None, **kwargs):
        cfg = self._config(loaders, **kwargs)
        report = audit_pairs(dict(cfg, type=PairedModalityDataset))
        report.format().encode()
        json.dumps(report.to_dict())
