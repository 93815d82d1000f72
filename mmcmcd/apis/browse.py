"""Pictures of what a data pipeline does to pairs."""

import os
import os.path as osp
import re

import cv2
import matplotlib
import numpy as np
from mmengine.utils import ProgressBar

from ..errors import ConfigError, DatasetError

_CAPTION = 18
_GAP = 4
_MIN_WIDTH = 200
_SHEET_PAIRS = 24
_SHEET_WIDTH = 1600


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
    black), the edges of the last side, or its strokes if it is a sketch, over
    the first, so that misalignment is seen, and the segmentation map if
    there is one.

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
        ConfigError: The pipeline never loads an image.
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
    """Run the pipeline step by step and keep the images of every stage.

    Args:
        dataset (Dataset): Not a wrapper.
        index (int): Which item.

    Returns:
        tuple[str, list[dict]]: Name of the pair, and one dict a stage:
        ``name`` of the transform, ``sides`` (name to (image, is depth)),
        ``sketches`` (names of sides), ``seg_map`` ((H, W) or None), and
        ``aligned``, whether all show the same place (several views of one
        image do not).

    Raises:
        DatasetError: A transform returned None.
        ConfigError: No stage has images.
    """
    results = dataset.get_data_info(index)
    name = results.get('pair_id') or _stem(results.get('img_path', index))
    stages = []
    for transform in dataset.pipeline.transforms:
        title = type(transform).__name__
        results = transform(results)
        if results is None:
            raise DatasetError(f'{title} returned None for {name!r}.')
        stage = _stage(title, results)
        if stage is not None:
            stages.append(stage)
    if not stages:
        raise ConfigError(
            f'The pipeline of {type(dataset).__name__} loads no image, there '
            'is nothing to draw.'
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
        panels = {
            side: as_picture(img, is_depth, channel_order)
            for side, (img, is_depth) in stage['sides'].items()
        }
        name, first = next(iter(panels.items()))
        above = {k: v for k, v in panels.items() if k != name}
        if stage['seg_map'] is not None:
            panels['labels'] = _paint_labels(stage['seg_map'], palette)
            above = above or {'labels': panels['labels']}
        if stage['aligned']:
            for name, picture in above.items():
                if picture.shape != first.shape:
                    continue
                if name in stage['sketches']:
                    title, lines = 'strokes', picture[..., 0] < 128
                else:
                    title, lines = 'edges', _edges(picture)
                panels[f'{title} of {name}'] = _overlay(first, lines)
        rows.append(_row(panels, f'{caption}  {stage["name"]}'.strip()))
    return _stack(rows, axis=0)


def colour_depth(depth, low=2, high=98):
    """Colour a depth map, red near to blue far, invalid (0) black.

    Args:
        depth (np.ndarray): (H, W); any unit.
        low (float): Percentile of the valid values that is red.
        high (float): Percentile of the valid values that is blue.

    Returns:
        np.ndarray: (H, W, 3) uint8, BGR.
    """
    valid = depth != 0
    out = np.zeros((*depth.shape, 3), np.uint8)
    if valid.any():
        near, far = np.percentile(depth[valid], [low, high])
        scaled = (depth - near) / max(far - near, 1e-12)
        colours = matplotlib.colormaps['Spectral'](np.clip(scaled, 0, 1))
        out[valid] = (colours[..., 2::-1] * 255).astype(np.uint8)[valid]
    return out


def as_picture(img, is_depth=False, channel_order='BGR'):
    """Show the image of any side.

    Args:
        img (np.ndarray): (H, W) or (H, W, C), any type, as in a pipeline.
        is_depth (bool): Whether it is a depth map. Defaults to False.
        channel_order (str): 'BGR' or 'RGB' of colour images.

    Returns:
        np.ndarray: (H, W, 3) uint8, BGR.
    """
    if img.ndim == 3 and (img == img[..., :1]).all() and is_depth:
        img = img[..., 0]
    if img.ndim == 2 and img.dtype != np.uint8:
        return colour_depth(img)
    if img.ndim == 2 or img.shape[2] == 1:
        return np.repeat(img.reshape(*img.shape[:2], 1), 3, axis=2)
    img = img[..., :3]
    if img.dtype != np.uint8:
        # Normals, HHA, or a normalised image: no scale of its own is known.
        low, high = img.min(), img.max()
        img = ((img - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return img if channel_order == 'BGR' else img[..., ::-1]


def _stage(title, results):
    """Images of one stage; None until every side has one."""
    if 'inputs' in results:
        return None
    sides = results.get('sides')
    if sides:
        items = {s: results[s] for s in sides if s in results}
    else:
        items = {'input': results}
    if not items or not all('img' in item for item in items.values()):
        return None
    found, aligned = {}, True
    for side, item in items.items():
        is_depth = item.get('modality') == 'depth'
        views = item['img']
        if isinstance(views, list):
            aligned = False
            for number, view in enumerate(views):
                found[f'{side} {number}'] = (view.copy(), is_depth)
        else:
            found[side] = (views.copy(), is_depth)
    seg_map = results.get('gt_seg_map')
    return dict(
        name=title,
        sides=found,
        sketches={s for s in items if items[s].get('modality') == 'sketch'},
        seg_map=None if seg_map is None else seg_map.copy(),
        aligned=aligned,
    )


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


def _row(panels, title):
    columns = []
    for name, picture in panels.items():
        height, width = picture.shape[:2]
        # Whole pixels, so that what is seen is what there is.
        zoom = -(-_MIN_WIDTH // width)
        picture = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
        strip = _text(f'{name} {width}x{height}', picture.shape[1])
        columns.append(np.concatenate([strip, picture]))
    row = _stack(columns, axis=1)
    return np.concatenate([_text(title, row.shape[1]), row])


def _text(text, width):
    strip = np.full((_CAPTION, width, 3), 255, np.uint8)
    return cv2.putText(
        strip,
        text.encode('ascii', 'replace').decode(),
        (2, _CAPTION - 6),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.4,
        (0, 0, 0),
        1,
        cv2.LINE_AA,
    )


def _stack(pictures, axis):
    """Put pictures of any size beside or below each other."""
    size = max(p.shape[1 - axis] for p in pictures)
    parts = []
    for picture in pictures:
        pad = [(0, 0)] * 3
        pad[1 - axis] = (0, size - picture.shape[1 - axis])
        pad[axis] = (0, _GAP)
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
        np.array_equal(img, second['sides'][side][0])
        for side, (img, _) in first['sides'].items()
    )


def _stem(path):
    return osp.splitext(osp.basename(str(path)))[0]


def _file_name(name):
    return re.sub(r'[^\w.+-]+', '_', name)
