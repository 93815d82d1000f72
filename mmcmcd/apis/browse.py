"""Pictures of what a data pipeline does to pairs."""

import os
import os.path as osp
import re
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
import torch
from mmengine.utils import ProgressBar

from ..analysis.array_picture import array_picture, spectrum_picture
from ..analysis.image_picture import finite_range, image_picture
from ..datasets.transforms import OnSide
from ..errors import ConfigError, DatasetError

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.4
_CAPTION = 18
_GAP = 4
_MIN_WIDTH = 200
_ARRAY_HEIGHT = 240
_MAX_ARRAY_HEIGHT = 480
_ARRAY_MODALITIES = ('audio', 'spectrogram', 'series', 'clip')
_SHEET_PAIRS = 24
_SHEET_WIDTH = 1600


class SideView(NamedTuple):
    """What one side, or one view of it, holds at a stage.

    Attributes:
        img (np.ndarray | torch.Tensor): An image, (H, W) or (H, W, C), any
            type, or an array in the network's layout, see
            :func:`mmcmcd.analysis.array_picture.array_picture`.
        modality (str | None): As loaders set it, e.g. 'depth', 'audio'.
        rate (float | None): Samples per second along the time of an array.
        start (float | None): Second of the recording that a segment begins
            with, or of the frame.
    """

    img: np.ndarray | torch.Tensor
    modality: str | None = None
    rate: float | None = None
    start: float | None = None

    @property
    def is_array(self):
        """bool: Whether it is no image; those may be tensors, too."""
        if not isinstance(self.img, torch.Tensor):
            return False
        return self.img.ndim != 3 or self.modality in _ARRAY_MODALITIES


def browse_dataset(
    dataset,
    output_dir,
    *,
    show_number=None,
    mode='transformed',
    channel_order='BGR',
    rescale_factor=1.0,
    prefix='',
):
    """Write one picture per pair, and a contact sheet of the first ones.

    A picture shows every side (depth coloured, red near to blue far, invalid
    black; arrays as :func:`mmcmcd.analysis.array_picture.array_picture` says,
    waveforms with their spectrum), the segmentation map if there is one, and
    the edges of every further image, or its strokes if it is a sketch, over
    the first one, so that misalignment is seen.

    Args:
        dataset (Dataset): Not a wrapper.
        output_dir (str): Where the PNG files go.
        show_number (int, optional): At most so many. Defaults to None: all.
        mode (str): 'original' (as loaded), 'transformed' (as the model gets
            it), 'concat' (both) or 'pipeline' (after every transform).
        channel_order (str): 'BGR' or 'RGB' of colour images.
        rescale_factor (float): Of the picture. Defaults to 1.
        prefix (str): Of the file names.

    Returns:
        list[str]: The files written, the sheet last.

    Raises:
        DatasetError: A pair cannot be loaded.
        ConfigError: The pipeline never loads an image or array.
    """
    os.makedirs(output_dir, exist_ok=True)
    number = min(show_number or len(dataset), len(dataset))
    palette = dataset.metainfo.get('palette')
    bar = ProgressBar(number)
    files, thumbs = [], []
    for index in range(number):
        name, stages = trace_pipeline(dataset, index)
        picture = draw_stages(
            _select(stages, mode), palette, channel_order, name
        )
        if rescale_factor != 1:
            picture = cv2.resize(
                picture, None, fx=rescale_factor, fy=rescale_factor
            )
        file = osp.join(output_dir, f'{prefix}{_file_name(name)}.png')
        cv2.imwrite(file, picture)
        files.append(file)
        if index < _SHEET_PAIRS:
            thumbs.append(picture)
        bar.update()
    sheet = osp.join(output_dir, f'{prefix}contact_sheet.png')
    cv2.imwrite(sheet, _contact_sheet(thumbs))
    return [*files, sheet]


def trace_pipeline(dataset, index):
    """Run the pipeline step by step and keep what every stage holds.

    Every transform of an :class:`OnSide` is a stage of its own.

    Args:
        dataset (Dataset): Not a wrapper.
        index (int): Which item.

    Returns:
        tuple[str, list[dict]]: Name of the pair, and one dict a stage:
        ``name`` of the transform, ``sides`` (name to :class:`SideView`),
        ``seg_map`` ((H, W) or None), and ``aligned``, whether all show the
        same place (several views of one image do not).

    Raises:
        DatasetError: A transform returned None.
        ConfigError: No stage has images or arrays.
    """
    results = dataset.get_data_info(index)
    name = results.get('pair_id') or _stem(results.get('img_path', index))
    stages, starts = [], {}
    for title, transform in _steps(dataset.pipeline.transforms):
        starts.update(_starts(results))  # a loader takes them away
        results = transform(results)
        if results is None:
            raise DatasetError(f'{title} returned None for {name!r}.')
        stage = _stage(title, results, {**starts, **_starts(results)})
        if stage is not None:
            stages.append(stage)
    if not stages:
        raise ConfigError(
            f'The pipeline of {type(dataset).__name__} loads no image or '
            'array, there is nothing to draw.'
        )
    return str(name), stages


def draw_stages(stages, palette=None, channel_order='BGR', caption=''):
    """Draw stages of :func:`trace_pipeline`, one row each.

    Args:
        stages (list[dict]): The stages.
        palette (list, optional): RGB colours of the label ids.
        channel_order (str): 'BGR' or 'RGB' of colour images.
        caption (str): Put before the name of each stage.

    Returns:
        np.ndarray: (H, W, 3) uint8, BGR.
    """
    rows = []
    for stage in stages:
        panels = _panels(stage, palette, channel_order)
        rows.append(_row(panels, f'{caption}  {stage["name"]}'.strip()))
    return _stack(rows, axis=0)


def _panels(stage, palette, channel_order):
    """Pictures of one stage by their labels: sides, label map, overlays."""
    sides = stage['sides']
    images = {
        name: as_picture(view, channel_order)
        for name, view in sides.items()
        if not view.is_array
    }
    heights = [len(_zoomed(picture)) for picture in images.values()]
    height = min(max(heights, default=_ARRAY_HEIGHT), _MAX_ARRAY_HEIGHT)
    panels = {}
    for name, view in sides.items():
        if not view.is_array:
            label = _image_label(name, images[name], view.start)
            panels[label] = _zoomed(images[name])
            continue
        panels[_array_label(name, view)] = as_picture(
            view, channel_order, height
        )
        if view.modality == 'audio':
            panels[f'spectrum of {name}'] = spectrum_picture(
                view.img, view.rate, height
            )
    if stage['seg_map'] is not None:
        labels = _paint_labels(stage['seg_map'], palette)
        panels[_image_label('labels', labels)] = _zoomed(labels)
        if len(images) == 1:
            images['labels'] = labels
    if stage['aligned'] and images:
        for label, picture in _overlays(images, sides):
            panels[_image_label(label, picture)] = _zoomed(picture)
    return panels


def _overlays(images, sides):
    """Yield the lines of every further image over the first one."""
    (_, first), *above = images.items()
    for name, picture in above:
        if picture.shape != first.shape:
            continue
        if name in sides and sides[name].modality == 'sketch':
            title, lines = 'strokes', picture[..., 0] < 128
        else:
            title, lines = 'edges', _edges(picture)
        yield f'{title} of {name}', _overlay(first, lines)


def as_picture(view, channel_order='BGR', height=_ARRAY_HEIGHT):
    """Show what any side holds.

    Args:
        view (SideView): Of a stage.
        channel_order (str): 'BGR' or 'RGB' of colour images.
        height (int): Of the picture of an array. An image keeps its size.

    Returns:
        np.ndarray: (H, W, 3) uint8, BGR.
    """
    img = view.img
    if view.is_array:
        return array_picture(
            img, view.modality, view.rate, height, channel_order
        )
    if isinstance(img, torch.Tensor):
        img = img.permute(1, 2, 0).numpy()
    return image_picture(img, view.modality == 'depth', channel_order)


def _steps(transforms):
    """Yield (title, transform), one step a transform of a side."""
    for transform in transforms:
        if not isinstance(transform, OnSide):
            yield type(transform).__name__, transform
            continue
        for side in transform.sides:
            for inner in transform.transforms:
                title = f'{type(inner).__name__} of {side}'
                yield title, OnSide(side, [inner])


def _items(results):
    """The sides of a pair by name; a single sample is one side."""
    sides = results.get('sides')
    if sides:
        return {side: results[side] for side in sides if side in results}
    return {'input': results}


def _starts(results):
    """Second of the recording by side, see :class:`SideView`."""
    found = {}
    for side, item in _items(results).items():
        if 'segment' in item:
            found[side] = item['segment'][0]
        elif item.get('img_path') in item.get('frames', ()):
            number = item['frames'].index(item['img_path'])
            found[side] = item['frame_times'][number]
    return found


def _stage(title, results, starts):
    """What the sides hold after a step; None until every side is loaded."""
    if 'inputs' in results:
        return None
    items = _items(results)
    if not items or not all('img' in item for item in items.values()):
        return None
    found, aligned = {}, True
    for side, item in items.items():
        kind = item.get('modality'), item.get('rate'), starts.get(side)
        views = item['img']
        if isinstance(views, list):
            aligned = False
            for number, view in enumerate(views):
                found[f'{side} {number}'] = SideView(_copy(view), *kind)
        else:
            found[side] = SideView(_copy(views), *kind)
    seg_map = results.get('gt_seg_map')
    return dict(
        name=title,
        sides=found,
        seg_map=None if seg_map is None else seg_map.copy(),
        aligned=aligned,
    )


def _copy(img):
    return img.clone() if isinstance(img, torch.Tensor) else img.copy()


def _select(stages, mode):
    original = stages[0]
    for stage in stages[1:]:
        if not _same_images(stage, original):
            break
        original = stage  # labels may be loaded after the images
    chosen = {
        'original': [original],
        'transformed': stages[-1:],
        'concat': [original, stages[-1]],
        'pipeline': stages,
    }
    return chosen[mode]


def _paint_labels(seg_map, palette):
    table = np.zeros((256, 3), np.uint8)
    if palette is None:
        colours = np.array(matplotlib.colormaps['tab20'].colors) * 255
        table[:255] = np.resize(colours.astype(np.uint8), (255, 3))
    else:
        table[: len(palette)] = palette
    return table[np.asarray(seg_map, np.uint8)][..., ::-1]


def _edges(picture):
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return cv2.Canny(cv2.GaussianBlur(grey, (3, 3), 0), 40, 120) > 0


def _overlay(picture, lines):
    """Lines, an (H, W) mask, in red over a picture, paled."""
    out = (picture * 0.6 + 90).astype(np.uint8)
    out[lines] = (0, 0, 255)
    return out


def _zoomed(picture):
    """Enlarge by whole pixels, so that what is seen is what there is."""
    zoom = -(-_MIN_WIDTH // picture.shape[1])
    return picture.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _image_label(name, picture, start=None):
    height, width = picture.shape[:2]
    moment = '' if start is None else f', at {start:.2f} s'
    return f'{name} {width}x{height}{moment}'


def _array_label(name, view):
    """Name, shape, rate, place in the recording, and range of an array."""
    values = view.img.float().numpy()
    low, high = finite_range(values)
    words = [f'{name} {"x".join(map(str, values.shape))}']
    if view.rate is not None:
        words.append(f'{view.rate:.5g} Hz')
    if view.start is not None:
        words.append(f'from {view.start:.2f} s')
    words.append(f'{low:.4g} to {high:.4g}')
    wrong = values.size - np.isfinite(values).sum()
    if wrong:
        words.append(f'{wrong} not finite')
    return ', '.join(words)


def _row(panels, title):
    columns = []
    for label, picture in panels.items():
        strip = _text(label, picture.shape[1])
        columns.append(_stack([strip, picture], axis=0, gap=0))
    row = _stack(columns, axis=1)
    return _stack([_text(title, row.shape[1]), row], axis=0, gap=0)


def _text(text, width):
    """A line of text; wider than asked if it needs to be."""
    text = text.encode('ascii', 'replace').decode()
    (needed, _), _ = cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)
    strip = np.full((_CAPTION, max(width, needed + 4), 3), 255, np.uint8)
    return cv2.putText(
        strip,
        text,
        (2, _CAPTION - 6),
        _FONT,
        _FONT_SCALE,
        (0, 0, 0),
        1,
        cv2.LINE_AA,
    )


def _stack(pictures, axis, gap=_GAP):
    """Put pictures of any size beside or below each other."""
    size = max(p.shape[1 - axis] for p in pictures)
    parts = []
    for picture in pictures:
        pad = [(0, 0)] * 3
        pad[1 - axis] = (0, size - picture.shape[1 - axis])
        pad[axis] = (0, gap)
        parts.append(np.pad(picture, pad, constant_values=255))
    return np.concatenate(parts, axis=axis)


def _contact_sheet(pictures):
    columns = max(1, round(_SHEET_WIDTH / max(p.shape[1] for p in pictures)))
    rows = [
        _stack(pictures[i : i + columns], axis=1)
        for i in range(0, len(pictures), columns)
    ]
    sheet = _stack(rows, axis=0)
    scale = min(1, _SHEET_WIDTH / sheet.shape[1])
    return cv2.resize(
        sheet, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
    )


def _same_images(first, second):
    return list(first['sides']) == list(second['sides']) and all(
        _equal(view.img, second['sides'][side].img)
        for side, view in first['sides'].items()
    )


def _equal(first, second):
    return type(first) is type(second) and np.array_equal(
        first, second, equal_nan=True
    )


def _stem(path):
    return osp.splitext(osp.basename(str(path)))[0]


def _file_name(name):
    return re.sub(r'[^\w.+-]+', '_', name)
