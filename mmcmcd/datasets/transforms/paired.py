"""Transforms on pairs: one side alone, or all sides with one draw."""

import inspect

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose

from mmcmcd.errors import (
    BrokenPairError,
    ConfigError,
    DatasetError,
    PairConfigError,
    UnreadableFileError,
)
from mmcmcd.registry import TRANSFORMS

from .random_state import rng_probe, rng_state, set_rng_state

# Values of these must not be mixed across pixels (holes, vectors).
_NEAREST_MODALITIES = frozenset({'depth', 'normals', 'hha'})
# These only move pixels, hence need no `interpolation`.  By name, so that
# mmseg stays optional.
_MOVES_PIXELS = frozenset(
    {
        'mmcv.CenterCrop',
        'mmcv.Pad',
        'mmcv.RandomFlip',
        'mmpretrain.RandomCrop',
        'mmseg.RandomCrop',
        'mmseg.RandomFlip',
    }
)
_CONTAINERS = frozenset({'mmcv.Compose', 'mmcv.RandomApply',
                         'mmcv.RandomChoice'})  # fmt: skip
_DEPTH_PAD, _SEG_PAD = 0, 255


@TRANSFORMS.register_module()
class OnSide(BaseTransform):
    """Run stock transforms on the sub-dict of one or several sides.

    Each side's sub-dict is an ordinary results dict (``img_path``, ``img``,
    ...).  Random transforms draw anew for every side: use it for loading
    and photometry, and :class:`SharedGeometry` for anything that moves
    pixels.

    While a side has no ``img`` yet, the transform at work is a loader:
    whatever it raises, or a None from it, becomes
    :class:`~mmcmcd.errors.UnreadableFileError` naming the side and file, so
    that the data set can stop at, or drop, the whole pair.

    Required Keys:

    - <side>

    Modified Keys:

    - <side>

    Args:
        sides (str | Sequence[str]): Side(s) to work on, e.g. 'target'.
        transforms (Sequence[dict | callable]): A pipeline.

    Raises:
        ConfigError: The pair has no such side.
        UnreadableFileError: A file could not be loaded.
        DatasetError: A later transform returned None.
    """

    def __init__(self, sides, transforms):
        self.sides = (sides,) if isinstance(sides, str) else tuple(sides)
        self.transforms = [
            TRANSFORMS.build(t) if isinstance(t, dict) else t
            for t in transforms
        ]

    def transform(self, results):
        """Run the pipeline on each named side."""
        for side in self.sides:
            if not isinstance(results.get(side), dict):
                raise ConfigError(
                    f'OnSide: no side {side!r} in pair '
                    f'{results.get("pair_id")!r}; it has '
                    f'{results.get("sides", ("source", "target"))}.'
                )
            item = results[side]
            for transform in self.transforms:
                if 'img' in item:
                    item = transform(item)
                else:
                    item = self._load(transform, item, side, results)
                if item is None:
                    raise DatasetError(
                        f'OnSide: {type(transform).__name__} returned None '
                        f'for side {side!r} of pair '
                        f'{results.get("pair_id")!r}.'
                    )
            results[side] = item
        return results

    @staticmethod
    def _load(loader, item, side, results):
        cause = None
        try:
            loaded = loader(item)
        except ConfigError:
            raise
        except Exception as error:
            loaded, cause = None, error
        if loaded is not None:
            return loaded
        detail = f'{type(loader).__name__} returned None'
        if isinstance(cause, UnreadableFileError):
            detail = str(cause)
        elif cause is not None:
            detail = f'{type(cause).__name__}: {cause}'
        raise UnreadableFileError(
            f'Cannot load side {side!r} of pair {results.get("pair_id")!r} '
            f'from {item.get("img_path")}: {detail}'
        ) from cause

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(sides={self.sides}, '
            f'transforms={self.transforms})'
        )


@TRANSFORMS.register_module()
class SharedGeometry(BaseTransform):
    """Give all sides of a pair, and its label map, the same geometry.

    The stock transforms are run once per field with the random generators
    of ``random``, ``numpy`` and ``torch`` rewound to the same point, so any
    stock transform keeps its own way of drawing, and the first side comes
    out as the stock pipeline alone would make it.  Afterwards the
    generators stand as if the transforms had run once, for any number of
    fields, and one number had been drawn from each to compare them.  The
    alternative in mmcv, ``TransformBroadcaster(share_random_params=True)``,
    raises on mmpretrain's ``RandomResizedCrop`` and resamples depth as a
    photo.

    Depth-like sides (``modality`` 'depth', 'normals' or 'hha') and the label
    map run a copy of the pipeline in which every ``interpolation`` is
    'nearest', and padding is 0 = invalid and 255 = ignored respectively.  A
    transform without an ``interpolation`` argument is refused for them,
    unless it is known to move pixels only or says so by a class attribute
    ``moves_pixels_only = True``.  That keeps photometric transforms away
    from depth, too.  A transform that draws from a generator of its own,
    not from the global ones, cannot be shared, and is not noticed.

    OpenCV's 'nearest' resize takes the first pixel of each cell, 'bilinear'
    its centre, so when both are used an image shrunk s times is displaced
    against depth by (s - 1) / 2 input pixels, less than half an output
    pixel.  ``depth_interpolation='masked'`` has no such offset.

    Required Keys:

    - <side>.img for every side in ``sides``
    - <side>.valid (optional, bool, (H, W)), resampled to the nearest
    - sides (optional, tuple, default ('source', 'target'))
    - gt_seg_map (optional, (H, W))

    Modified Keys:

    - <side>, with what the stock transforms change or add
    - gt_seg_map

    Args:
        transforms (Sequence[dict]): Geometric transforms of mmcv,
            mmpretrain or mmseg, as config dicts.
        interpolation (str, optional): Overrides the interpolation on image
            sides.
        depth_interpolation (str): 'nearest', or 'masked': bilinear of
            depth * valid over bilinear of valid, invalid where less than
            half of the weight is valid.  'masked' smooths across depth
            edges.  Defaults to 'nearest'.

    Raises:
        ConfigError: A transform cannot be shared: it would resample depth
            or labels; or a side is an array, no image.
        PairConfigError: Its draws depend on the image's content.
        BrokenPairError: Fields of a pair come with different sizes.
        DatasetError: A transform returned None, or made the sizes differ.
    """

    def __init__(
        self, transforms, interpolation=None, depth_interpolation='nearest'
    ):
        if depth_interpolation not in ('nearest', 'masked'):
            raise ConfigError(
                "SharedGeometry: depth_interpolation must be 'nearest' or "
                f"'masked', got {depth_interpolation!r}."
            )
        if not all(isinstance(t, dict) for t in transforms):
            raise ConfigError(
                'SharedGeometry: transforms must be config dicts, because '
                'depth and labels need their own copies; got '
                f'{[type(t).__name__ for t in transforms]}.'
            )
        self.interpolation = interpolation
        self.depth_interpolation = depth_interpolation
        self.image = _Variant('image', transforms, interpolation)
        self.nearest = _Variant('depth', transforms, 'nearest', _DEPTH_PAD)
        self.seg = _Variant('gt_seg_map', transforms, 'nearest', _SEG_PAD)
        self.masked = None
        if depth_interpolation == 'masked':
            self.masked = _Variant('depth', transforms, 'bilinear', _DEPTH_PAD)

    def transform(self, results):
        """Transform every field of ``results`` with the same draw."""
        fields = self._fields(results)
        self._check_sizes(results, fields, 'before', BrokenPairError)
        start, first = rng_state(), None
        for name, (variant, item) in fields.items():
            if first is not None:
                set_rng_state(start)
            out = variant(item)
            if out is None:
                raise DatasetError(
                    'SharedGeometry: a transform returned None for '
                    f'{name!r} of pair {results.get("pair_id")!r}.'
                )
            fields[name] = (variant, out)
            probe = rng_probe()
            if first is None:
                first = probe
            elif probe != first:
                raise PairConfigError(
                    f'SharedGeometry: {name!r} of pair '
                    f'{results.get("pair_id")!r} consumed other random '
                    'numbers than the first side, so the sides would not '
                    'match. The draws of some transform depend on image '
                    f'content or type; replace it in {self.image}.'
                )
        # This is no fault of the pair, but of the config.
        self._check_sizes(results, fields, 'after', DatasetError)
        for name, (_, item) in fields.items():
            side, _, part = name.rpartition('.')
            if part == 'valid':
                results[side]['valid'] = item['img'] > 0
            else:
                results[name] = item['img'] if name == 'gt_seg_map' else item
        return results

    def _fields(self, results):
        """Map the field's name to its pipeline and results dict."""
        fields = {}
        for side in results.get('sides', ('source', 'target')):
            item = results.get(side)
            if not isinstance(item, dict) or 'img' not in item:
                raise DatasetError(
                    f'SharedGeometry: side {side!r} of pair '
                    f'{results.get("pair_id")!r} has no image; load it '
                    'before.'
                )
            if isinstance(item['img'], torch.Tensor):
                raise ConfigError(
                    f'SharedGeometry: side {side!r} is an array of shape '
                    f'{tuple(item["img"].shape)}, no image. Crop time by '
                    'mmcmcd.SharedTemporalCrop; images beside an array, and '
                    'clips, get their transforms by mmcmcd.OnSide.'
                )
            fields[side] = (self._variant_for(item), item)
            if 'valid' in item:
                fields[f'{side}.valid'] = self._mask(item.pop('valid'))
        seg = results.get('gt_seg_map')
        if seg is not None:
            fields['gt_seg_map'] = (
                self.seg.required(),
                dict(img=seg, img_shape=seg.shape, ori_shape=seg.shape),
            )
        return fields

    def _mask(self, valid):
        """A field of valid pixels, which padding has none of."""
        return self.nearest.required(), dict(
            img=valid.astype(np.uint8),
            img_shape=valid.shape,
            ori_shape=valid.shape,
        )

    def _variant_for(self, item):
        modality = item.get('modality')
        if modality not in _NEAREST_MODALITIES:
            return self.image
        if modality == 'depth' and self.masked is not None:
            self.masked.required()
            return self._run_masked
        return self.nearest.required()

    def _run_masked(self, item):
        """Resample depth bilinearly over valid pixels only."""
        depth = item['img']
        valid = (depth > 0).astype(np.float32)
        # Two channels of one image, hence one run and one draw.
        item['img'] = np.stack([depth, valid], axis=-1)
        item = self.masked(item)
        if item is None:
            return None
        weight = item['img'][..., 1]
        keep = weight >= 0.5
        item['img'] = np.divide(
            item['img'][..., 0],
            weight,
            out=np.zeros(weight.shape, np.float32),
            where=keep,
        )
        return item

    def _check_sizes(self, results, fields, when, fault):
        shapes = {n: f['img'].shape[:2] for n, (_, f) in fields.items()}
        if len(set(shapes.values())) > 1:
            sizes = ', '.join(
                f'{name} {w}x{h}' for name, (h, w) in shapes.items()
            )
            advice = (
                'Resize the sides to one size with mmcmcd.OnSide first, or '
                'repair the data.'
                if when == 'before'
                else 'A transform treats the sides differently.'
            )
            raise fault(
                f'SharedGeometry: sizes (width x height) differ {when} the '
                f'transforms for pair {results.get("pair_id")!r}: {sizes}. '
                f'{advice}'
            )

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(transforms={self.image}, '
            f'interpolation={self.interpolation!r}, '
            f'depth_interpolation={self.depth_interpolation!r})'
        )


class _Variant:
    """The pipeline as one kind of field needs it.

    A refusal is kept until a field of that kind really comes: pairs without
    depth and labels may use any transform.
    """

    def __init__(self, kind, transforms, interpolation, pad_val=None):
        self.kind = kind
        self.refused = []
        cfgs = _specialise(transforms, interpolation, pad_val, self.refused)
        if kind != 'image' and self.refused:
            self.pipeline = None
        else:
            self.pipeline = Compose([TRANSFORMS.build(cfg) for cfg in cfgs])

    def required(self):
        """Return self, or say why this kind of field is refused."""
        if self.pipeline is None:
            raise ConfigError(
                f'SharedGeometry: {", ".join(self.refused)} may mix '
                f'neighbouring pixels and has no `interpolation` argument to '
                f'prevent that for {self.kind}. Use a transform that has one '
                '(e.g. mmpretrain.Rotate), or move photometric transforms '
                'into mmcmcd.OnSide; a class of yours that only moves pixels '
                'says so by `moves_pixels_only = True`.'
            )
        return self

    def __call__(self, item):
        return self.pipeline(item)

    def __repr__(self):
        return repr(self.pipeline)


def _specialise(node, interpolation, pad_val, refused):
    """Copy a config with the given interpolation and padding throughout.

    Names of classes that cannot be told how to resample are appended to
    ``refused``.
    """
    if isinstance(node, (list, tuple)):
        return type(node)(
            _specialise(n, interpolation, pad_val, refused) for n in node
        )
    if not isinstance(node, dict):
        return node
    cfg = {
        key: _specialise(value, interpolation, pad_val, refused)
        for key, value in node.items()
    }
    if 'type' not in cfg:
        return cfg
    cls = _resolve(cfg['type'], cfg.get('_scope_'))
    if cfg.get('cat_max_ratio', 1.0) < 1:  # mmseg.RandomCrop
        raise ConfigError(
            f'SharedGeometry: {cfg["type"]} with cat_max_ratio='
            f'{cfg["cat_max_ratio"]} draws by looking at the labels, which '
            'a side of a pair does not have; leave cat_max_ratio out.'
        )
    accepted = _init_names(cls)
    if 'resize_type' in accepted:  # RandomResize and its kin pass kwargs on
        resize = cfg.get('resize_type', 'Resize')
        accepted |= _init_names(_resolve(resize, cfg.get('_scope_')))
    if interpolation is not None and 'interpolation' in accepted:
        cfg['interpolation'] = interpolation
    if 'interpolation' not in accepted and not _only_moves(cls):
        refused.append(str(cfg['type']))
    if pad_val is None:
        return cfg
    if 'pad_val' in accepted:
        cfg['pad_val'] = pad_val
    if 'pad_cfg' in accepted and 'pad_cfg' not in cfg:
        cfg['pad_cfg'] = dict(type='Pad', pad_val=pad_val)
    if 'backend' in accepted:
        cfg['backend'] = 'cv2'  # Pillow takes uint8 only
    return cfg


def _resolve(type_, scope):
    """Return the class that ``TRANSFORMS.build`` would take."""
    if not isinstance(type_, str):
        return type_
    with TRANSFORMS.switch_scope_and_registry(scope) as registry:
        cls = registry.get(type_)
    if cls is None:
        raise ConfigError(
            f'SharedGeometry: there is no transform {type_!r} in the default '
            'scope of this config; prefix it, e.g. mmpretrain.RandomCrop.'
        )
    return cls


def _init_names(cls):
    """Names of arguments that ``cls`` takes, through ``**kwargs`` too."""
    names = set()
    for base in inspect.getmro(cls) if inspect.isclass(cls) else ():
        init = base.__dict__.get('__init__')
        if init is None or base is object:
            continue
        params = inspect.signature(init).parameters.values()
        names.update(p.name for p in params)
        if not any(p.kind is p.VAR_KEYWORD for p in params):
            break
    return names


def _only_moves(cls):
    # Looked up in the class itself: a subclass may resample.
    if getattr(cls, '__dict__', {}).get('moves_pixels_only', False):
        return True
    package = getattr(cls, '__module__', '').split('.')[0]
    name = f'{package}.{getattr(cls, "__name__", "")}'
    return name in _MOVES_PIXELS or name in _CONTAINERS
