"""Sketches: loading of drawn ones, and drawing them from images.

Everywhere here a sketch is uint8, (H, W), dark strokes on white paper.
"""

import io

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from PIL import Image, ImageOps

from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError
from mmcmcd.registry import TRANSFORMS

from .image_headers import (
    MAX_PIXELS,
    check_complete,
    check_max_pixels,
    check_pixels,
)
from .loading import read_bytes

_WHITE = 255
# Smallest difference (of 255) between a stroke and the paper.  Our choice:
# above the noise of a scan or of JPEG, below a faint pencil line.
_MIN_CONTRAST = 16
# Lengths in pixels hold where the shorter side has so many.
_REFERENCE_SIDE = 256


def is_inverted(sketch):
    """Tell whether a sketch has light strokes on dark paper.

    The rule is ours.  Strokes cover less than half of a sketch, so the
    median is the paper, and the strokes are what lies far from it.  The
    third moment about the median says on which side: positive means
    lighter strokes.  For two-tone pictures this is exact up to half
    coverage; unlike a fixed grey level it also holds for grey paper, and
    unlike the extremes it does not hang on single pixels.

    Args:
        sketch (np.ndarray): (H, W), grey.

    Returns:
        bool: True for light on dark; False for dark on light, and for a
        constant picture.
    """
    away = sketch - np.median(sketch)
    return bool((away**3).mean() > 0)


def is_blank(sketch):
    """Tell whether a picture has no stroke, dark or light.

    Args:
        sketch (np.ndarray): (H, W), uint8.

    Returns:
        bool: True if its levels differ by less than 16.
    """
    return int(sketch.max()) - int(sketch.min()) < _MIN_CONTRAST


@TRANSFORMS.register_module()
class LoadSketch(BaseTransform):
    """Load a sketch as grey levels, dark strokes on white paper.

    Any PNG, JPEG or other format of Pillow: grey of 1 to 16 bits, colour
    (its luminance, ITU-R 601), palette, with or without transparency.
    Transparent pixels are paper: a stock loader drops the alpha channel,
    and a drawing on a transparent background often comes out all black.
    Light strokes on a transparent background count as inverted.  An EXIF
    orientation is applied, as stock loaders do.

    Required Keys:

    - img_path

    Added Keys:

    - img (uint8, (H, W))
    - img_shape
    - ori_shape
    - modality ('sketch')

    Args:
        on_inverted (str): What to do with light strokes on dark paper, as
            :func:`is_inverted` finds them: 'error' (default), 'invert' them
            or 'keep' them.
        allow_blank (bool): Accept a picture without a stroke, as white
            paper.  Defaults to False.
        ignore_empty (bool): Return None for an unreadable file, as stock
            loaders do, instead of raising.  Defaults to False.
        backend_args (dict, optional): See :func:`mmengine.fileio.get`.
        max_pixels (int): Refuse images of more, width times height, before
            they are decoded.  Defaults to 89478485, Pillow's own limit.

    Raises:
        ConfigError: ``on_inverted`` is unknown, or ``max_pixels`` not
            positive.
        UnreadableFileError: The file is missing, empty, truncated, too
            large, not an image, inverted or blank.
    """

    def __init__(
        self,
        on_inverted='error',
        allow_blank=False,
        ignore_empty=False,
        backend_args=None,
        max_pixels=MAX_PIXELS,
    ):
        check_max_pixels(self, max_pixels)
        if on_inverted not in ('error', 'invert', 'keep'):
            raise ConfigError(
                "LoadSketch: on_inverted must be 'error', 'invert' or "
                f"'keep', got {on_inverted!r}."
            )
        self.on_inverted = on_inverted
        self.allow_blank = allow_blank
        self.ignore_empty = ignore_empty
        self.backend_args = backend_args
        self.max_pixels = max_pixels

    def transform(self, results):
        """Load ``results['img_path']`` into ``results['img']``."""
        path = results['img_path']
        try:
            sketch = self._on_white(self._read(path), path)
        except UnreadableFileError:
            if self.ignore_empty:
                return None
            raise
        results['img'] = sketch
        results['img_shape'] = sketch.shape
        results['ori_shape'] = sketch.shape
        results['modality'] = 'sketch'
        return results

    def _read(self, path):
        """Return the stored picture as (H, W) uint8, whichever way round."""
        content = read_bytes(path, self.backend_args)
        check_complete(content, path)
        check_pixels(content, path, self.max_pixels)
        try:
            with Image.open(io.BytesIO(content)) as image:
                return _grey(ImageOps.exif_transpose(image))
        # What Pillow raises for damaged files depends on the format.
        except (
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
        ) as error:
            raise UnreadableFileError(
                f'Cannot decode sketch {path}: {error} ({len(content)} '
                f'bytes, starts with {content[:8]!r}).'
            ) from error

    def _on_white(self, sketch, path):
        if is_blank(sketch):
            if self.allow_blank:
                return np.full_like(sketch, _WHITE)
            raise UnreadableFileError(
                f'Blank sketch: {path} has no stroke, its levels are '
                f'{sketch.min()} to {sketch.max()} of 255. Restore the file '
                'or take it out of the list; LoadSketch(allow_blank=True) '
                'accepts it as white paper.'
            )
        if self.on_inverted == 'keep' or not is_inverted(sketch):
            return sketch
        if self.on_inverted == 'invert':
            return _WHITE - sketch
        raise UnreadableFileError(
            f'Inverted sketch: {path} is white on black (or more than half '
            'of it is ink); expected black strokes on white paper. Set '
            "LoadSketch(on_inverted='invert') to turn such files round, or "
            "'keep' if they are meant so."
        )

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(on_inverted={self.on_inverted!r}, '
            f'allow_blank={self.allow_blank}, '
            f'ignore_empty={self.ignore_empty})'
        )


def _grey(image):
    """Turn any Pillow image into (H, W) uint8, transparency into paper."""
    if image.mode == 'F':
        raise ValueError('it stores floats; 8 or 16 bits were expected')
    if image.mode.startswith('I'):  # Pillow's own conversion would clip
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError('it stores more than 16 bits')
        return ((wide + 128) // 257).astype(np.uint8)
    if not image.has_transparency_data:
        return np.array(image.convert('L'))
    image = image.convert('RGBA')
    on_white = _compose(image, _WHITE)
    if is_blank(on_white):
        on_black = _compose(image, 0)
        if not is_blank(on_black):
            return on_black  # light strokes, which white paper would hide
    return on_white


def _compose(image, paper):
    background = Image.new('L', image.size, paper)
    background.paste(image.convert('L'), mask=image.getchannel('A'))
    return np.array(background)


# Of a picture that is drawn.  All are our choices, made by looking at photos
# beside sketches that people drew of them (The Sketchy Database).
_FLAT = 4  # grey levels; less is a picture without anything to draw
_LEAST_RESPONSE = 0.01  # for grey levels of 0 to 1; else plain areas fill up
_SOFTNESS = 0.8  # width of the rim of a stroke, as a share of its level
_SHORTEST = 0.06  # stroke, as a share of the shorter side
_CANNY_LOW = 0.4  # hysteresis threshold, as a share of the high one
_CANNY_SCALE = 16000  # gradients of 0 to 1 in int16, squares in int32


def _canny(grey, sigma, ink):
    """Canny edges, thin lines drawn with a pen of the smoothing's width."""
    smooth = cv2.GaussianBlur(grey, (0, 0), sigma)
    dx, dy = _gradient(smooth)
    high = _CANNY_SCALE * _level(cv2.magnitude(dx, dy), ink)
    edges = cv2.Canny(
        (_CANNY_SCALE * dx).astype(np.int16),
        (_CANNY_SCALE * dy).astype(np.int16),
        _CANNY_LOW * high,
        high,
        L2gradient=True,
    )
    pen = max(0.5 * sigma, 0.5)
    lines = cv2.GaussianBlur(edges.astype(np.float32), (0, 0), pen)
    centre = edges.max() / (pen * np.sqrt(2 * np.pi))  # of a straight line
    return lines / max(0.5 * centre, 1)


def _scharr(grey, sigma, ink):
    """Gradient magnitude: broad strokes along both sides of an edge."""
    smooth = cv2.GaussianBlur(grey, (0, 0), sigma)
    response = cv2.magnitude(*_gradient(smooth))
    return response / _level(response, ink)


def _dog(grey, sigma, ink):
    """Difference of Gaussians: the dark side of an edge, and dark lines.

    Widths 1 : 1.6 and a soft threshold as in XDoG (Winnemoeller, Kyprianidis
    and Olsen, Computers & Graphics 2012), whose shading is left out.
    """
    near = cv2.GaussianBlur(grey, (0, 0), sigma)
    response = cv2.GaussianBlur(grey, (0, 0), 1.6 * sigma) - near
    return response / _level(response, ink)


def _pencil(grey, sigma, ink):
    """Colour dodge: what is dark in proportion to its surroundings."""
    near = cv2.GaussianBlur(grey, (0, 0), sigma)
    far = cv2.GaussianBlur(grey, (0, 0), 3 * sigma)
    # The offset keeps noise in black regions from being contrast.
    response = 1 - cv2.divide(near + 0.05, far + 0.05)
    return response / _level(response, ink)


_STYLES = dict(canny=_canny, scharr=_scharr, dog=_dog, pencil=_pencil)


def _gradient(grey):
    """Horizontal and vertical slope per pixel, two (H, W) float32."""
    scale = 1 / 32  # Scharr's weights: 16, over two pixels
    return (
        cv2.Scharr(grey, cv2.CV_32F, 1, 0, scale=scale),
        cv2.Scharr(grey, cv2.CV_32F, 0, 1, scale=scale),
    )


def _level(response, ink):
    """The response that about the share ``ink`` of the pixels exceeds.

    Higher where that many pixels have no response worth drawing.
    """
    sample = response[::2, ::2].ravel()  # a fast estimate
    rank = int((1 - ink) * (sample.size - 1))
    return max(float(np.partition(sample, rank)[rank]), _LEAST_RESPONSE)


def _drop_strokes(darkness, drop):
    """Rub out short strokes, and the share ``drop`` of the others.

    A stroke is what hangs together.  The longest one always stays.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (darkness > 0).astype(np.uint8)
    )
    length = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1)
    length[0] = 0  # the paper
    keep = length >= _SHORTEST * min(darkness.shape)
    keep &= np.random.random_sample(count) >= drop
    keep[length.argmax()] = True
    return darkness * keep[labels]


@TRANSFORMS.register_module()
class SketchFromImage(BaseTransform):
    """Draw a sketch of an image: black strokes along its edges.

    Turns unlabelled images into pairs on line.  Style and strength are
    drawn anew for every image; thresholds follow the image's own contrast,
    so dark, pale and bright photos all give strokes, and a change of
    brightness or contrast changes next to nothing.  An image without any
    contrast (less than 4 of 255 levels) gives white paper.

    The styles: 'canny' (thin contours), 'scharr' (broad, soft contours),
    'dog' (difference of Gaussians: the dark side of contours, dark lines)
    and 'pencil' (colour dodge: darker than its surroundings, with some
    shading).  On 347 photos of The Sketchy Database the defaults ink 4.5 % of
    the pixels in the median; 3 % are inked in what people drew of them.
    People draw the object alone, an edge detector its background, too.

    Required Keys:

    - img ((H, W, 3) in BGR order, or grey (H, W))

    Modified Keys:

    - img (uint8, (H, W))

    Added Keys:

    - modality ('sketch')

    Args:
        styles (Sequence[str] | str): One of these is drawn per image.
        sigma (tuple[float, float]): Range of the smoothing, and of the
            strokes' width with it: standard deviation in pixels of an image
            whose shorter side is 256, scaled with that side.
        ink (tuple[float, float]): Range of the share of pixels that is to be
            inked; pictures with few edges get less, 'canny' is less exact.
        drop (tuple[float, float]): Range of the share of strokes left out.
            The longest always stays.

    Raises:
        ConfigError: A style is unknown, or a range is not in order.
        DatasetError: ``img`` is neither BGR nor grey.
    """

    def __init__(
        self,
        styles=('canny', 'scharr', 'dog', 'pencil'),
        sigma=(1.5, 3.0),
        ink=(0.02, 0.08),
        drop=(0.0, 0.3),
    ):
        self.styles = (styles,) if isinstance(styles, str) else tuple(styles)
        unknown = [style for style in self.styles if style not in _STYLES]
        if unknown or not self.styles:
            raise ConfigError(
                f'SketchFromImage: styles must be some of {list(_STYLES)}, '
                f'got {styles!r}.'
            )
        self.sigma = _checked_range('sigma', sigma, 0.1, 20)
        self.ink = _checked_range('ink', ink, 0.001, 0.5)
        self.drop = _checked_range('drop', drop, 0, 1)

    @cache_randomness
    def _draw_strength(self):
        return (
            self.styles[np.random.randint(len(self.styles))],
            np.random.uniform(*self.sigma),
            np.random.uniform(*self.ink),
            np.random.uniform(*self.drop),
        )

    def transform(self, results):
        """Replace ``results['img']`` by a sketch of it."""
        style, sigma, ink, drop = self._draw_strength()
        grey = _as_grey(results['img'])
        low, high = float(grey.min()), float(grey.max())
        sketch = np.full(grey.shape, _WHITE, np.uint8)
        if high - low >= _FLAT:
            grey = (grey - low) / (high - low)
            sigma = max(sigma * min(grey.shape) / _REFERENCE_SIDE, 0.5)
            response = _STYLES[style](grey, sigma, ink)
            darkness = np.clip((response - 1) / _SOFTNESS + 0.5, 0, 1)
            darkness = _drop_strokes(darkness, drop)
            sketch -= np.rint(_WHITE * darkness).astype(np.uint8)
        results['img'] = sketch
        results['modality'] = 'sketch'
        return results

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(styles={self.styles}, '
            f'sigma={self.sigma}, ink={self.ink}, drop={self.drop})'
        )


def _checked_range(name, bounds, least, most):
    low, high = bounds
    if not least <= low <= high <= most:
        raise ConfigError(
            f'SketchFromImage: {name} must be (low, high) with {least} <= '
            f'low <= high <= {most}, got {bounds}.'
        )
    return low, high


def _as_grey(img):
    """Return (H, W) float32."""
    if img.ndim == 3 and img.shape[2] == 3:
        img = cv2.cvtColor(img, cv2.COLOR_BGR2GRAY)
    elif img.ndim == 3 and img.shape[2] == 1:
        img = img[..., 0]
    if img.ndim != 2:
        raise DatasetError(
            'SketchFromImage: img must be (H, W, 3) in BGR order or grey '
            f'(H, W), got shape {img.shape}.'
        )
    return img.astype(np.float32)


@TRANSFORMS.register_module()
class RandomStrokeWidth(BaseTransform):
    """Draw a sketch with a broader or finer pen.

    Grey erosion and dilation by a round pen; parts of a pixel are mixed, so
    fine strokes grow paler instead of breaking up.

    Required Keys:

    - img (uint8, (H, W), dark strokes on white paper)

    Modified Keys:

    - img

    Args:
        change (tuple[float, float]): Range of what each side of a stroke
            gains, in pixels of a sketch whose shorter side is 256, scaled
            with that side; negative to lose, at most 1.  Defaults to
            (-0.5, 1.5).
        prob (float): Probability of any change.  Defaults to 0.5.

    Raises:
        ConfigError: ``change`` is not in order.
    """

    def __init__(self, change=(-0.5, 1.5), prob=0.5):
        if not -1 <= change[0] <= change[1]:
            raise ConfigError(
                'RandomStrokeWidth: change must be (low, high) with -1 <= '
                f'low <= high, got {change}.'
            )
        self.change = tuple(change)
        self.prob = prob

    @cache_randomness
    def _disabled(self):
        return np.random.rand() >= self.prob

    @cache_randomness
    def _draw_change(self):
        return np.random.uniform(*self.change)

    def transform(self, results):
        """Change the strokes of ``results['img']``."""
        if self._disabled():
            return results
        sketch = results['img']
        change = self._draw_change() * min(sketch.shape[:2]) / _REFERENCE_SIDE
        whole, part = divmod(abs(change), 1)
        # Strokes are dark, hence a minimum filter broadens them.
        change_by = cv2.erode if change > 0 else cv2.dilate
        below = change_by(sketch, _pen(int(whole)))
        above = change_by(sketch, _pen(int(whole) + 1))
        results['img'] = cv2.addWeighted(below, 1 - part, above, part, 0)
        return results

    def __repr__(self):
        return (
            f'{self.__class__.__name__}(change={self.change}, '
            f'prob={self.prob})'
        )


def _pen(radius):
    size = 2 * radius + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
