"""Compare feature maps of student and teacher, location by location."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, ModuleDict
from torch import Tensor

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils.collectives import batch_sizes, own_slice
from mmcmcd.registry import MODELS

from .source_norm import apply_source_norm, build_source_norm

_CANDIDATES = ('batch', 'image', 'others')


class DenseComparison(BaseModule):
    """Losses of locations: a row is a cell of a feature map, not an image.

    The geometry of a pair is shared, so cell ``(y, x)`` of the student's map
    belongs to cell ``(y, x)`` of the teacher's once both have one grid.

    Args:
        name (str): Its name in the config and in the log.
        loss (dict): Config of a loss, as in :class:`CrossModalDistiller`.
        stage (int): Which of the maps that the student's backbone returns
            (``out_indices``). Defaults to -1, the last.
        teacher_stage (int, optional): The same of the teacher. Defaults to
            None: ``stage``.
        projector (dict, optional): Config of a trained layer on the
            student's map, (B, C, H, W) to (B, C', H, W), such as
            ``dict(type='Conv2d', in_channels=512, out_channels=512,
            kernel_size=1)``; dropped after distillation.
        source_norm (dict, optional): Config of a norm layer without trained
            parameters on the teacher's rows (N, C), such as
            ``dict(type='mmcmcd.Center', num_features=512)``; statistics are
            those of the locations that are compared.
        grid (str | tuple[int, int], optional): The grid of both sides:
            ``'student'``, ``'teacher'`` or (rows, columns). Maps are averaged
            down to it (adaptive pooling) or interpolated bilinearly up to
            it. Defaults to None: they have to be equal.
        locations_per_image (int, optional): The most locations of an image
            that are compared, drawn anew at each training step, the same on
            both sides. Defaults to None: all.
        candidates (str): What a location is compared with beside its own
            partner: ``'image'``, the locations of the same image;
            ``'others'``, those of other images; ``'batch'``, both. Locations
            of other images of the same group are none.
        exclusion_radius (int): Locations of the same image at most so many
            cells away, in rows and in columns, are no negatives; a square of
            (2 r + 1) x (2 r + 1) cells. Defaults to 0.
        min_valid (float): Least share of valid pixels in a cell that is
            compared, of images that tell which are. Defaults to 0.5.

    Raises:
        ConfigError: A value is out of range.
    """

    def __init__(
        self,
        name: str,
        loss: dict,
        stage: int = -1,
        teacher_stage: int | None = None,
        projector: dict | None = None,
        source_norm: dict | None = None,
        grid: str | tuple[int, int] | None = None,
        locations_per_image: int | None = None,
        candidates: str = 'batch',
        exclusion_radius: int = 0,
        min_valid: float = 0.5,
    ) -> None:
        super().__init__()
        self.where = f'model.dense.{name}'
        self.name = name
        self.stage = stage
        self.teacher_stage = stage if teacher_stage is None else teacher_stage
        self.grid = _check_grid(grid, self.where)
        self.locations_per_image = locations_per_image
        self.candidates = candidates
        self.exclusion_radius = exclusion_radius
        self.min_valid = min_valid
        self._check_numbers()
        self.loss = MODELS.build(loss)
        self._check_candidates()
        self.projector = None if projector is None else MODELS.build(projector)
        self.source_norm = (
            None
            if source_norm is None
            else build_source_norm(source_norm, self._norm_place)
        )

    @property
    def _norm_place(self):
        return f'dense.{self.name}.source_norm'

    def _check_numbers(self):
        limits = dict(
            candidates=(
                self.candidates in _CANDIDATES,
                f'one of {_CANDIDATES}',
            ),
            exclusion_radius=(
                _is_integer(self.exclusion_radius, 0),
                'an integer of 0 or more, in cells of the grid',
            ),
            locations_per_image=(
                self.locations_per_image is None
                or _is_integer(self.locations_per_image, 1),
                'None or an integer of 1 or more',
            ),
            min_valid=(0 <= self.min_valid <= 1, 'a share from 0 to 1'),
        )
        for key, (is_right, expected) in limits.items():
            if not is_right:
                raise ConfigError(
                    f'{self.where}.{key} must be {expected}, but got '
                    f'{getattr(self, key)!r}.'
                )
        if self.exclusion_radius and self.candidates == 'others':
            raise ConfigError(
                f'{self.where}.exclusion_radius is about locations of the '
                "same image, of which candidates='others' has none. Leave it "
                "out, or choose candidates='batch'."
            )

    def _check_candidates(self):
        if getattr(self.loss, 'needs_memory', False):
            raise ConfigError(
                f'{self.where}: {type(self.loss).__name__} compares with a '
                'queue alone, and dense comparisons have none. Choose '
                "candidates='all' in its loss."
            )
        kinds = ('compares_teachers', 'compares_students')
        chosen = self.candidates != 'batch' or self.exclusion_radius
        if chosen and not any(getattr(self.loss, k, True) for k in kinds):
            raise ConfigError(
                f'{self.where}: {type(self.loss).__name__} compares no '
                'location with others, so that candidates and '
                'exclusion_radius have no effect. Leave them out.'
            )

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        group_ids: Tensor | None,
        valid: Tensor | None = None,
        pair_ids: Sequence[str] = (),
    ) -> dict[str, Tensor]:
        """Compare the maps of one batch.

        Args:
            student (Tensor): The student's map (B, C, H, W).
            teacher (Tensor): The teacher's map (B, C', H', W'), constant.
            group_ids (Tensor, optional): Integers (B, ) of the images.
            valid (Tensor, optional): Booleans (B, 1, H'', W''), which pixels
                of the images count. Defaults to None: all.
            pair_ids (Sequence[str]): Names of the pairs, for messages.

        Returns:
            dict[str, Tensor]: ``loss_<name>``, or of a loss of several terms
            ``loss_<name>_<term>``.

        Raises:
            ConfigError: Grids differ and no rule is given, the projector
                changes the grid, its rows are of another width than the
                teacher's where they must not be, or no location is valid.
        """
        student, teacher, chosen = self._align(student, teacher, valid)
        if not chosen.any():
            raise ConfigError(
                f'{self.where}: no location of the batch has at least '
                f'{self.min_valid:.0%} valid pixels: nothing to compare. '
                f'Leave out the pairs {", ".join(map(str, pair_ids))}, for '
                'example by min_valid_fraction of LoadDepthFromFile, or '
                f'lower {self.where}.min_valid.'
            )
        rows = self._rows(student, teacher, chosen)
        self._check_width(*rows)
        value = self.loss(*rows, **self._left_out(chosen, group_ids))
        if not isinstance(value, dict):
            return {f'loss_{self.name}': value}
        # mmengine sums what contains 'loss': it must say so before as after.
        return {
            f'loss_{self.name}_{key.removeprefix("loss_")}'
            if key.startswith('loss_')
            else f'{self.name}_{key}': term
            for key, term in value.items()
        }

    @torch.no_grad()
    def regions(
        self, student: Tensor, teacher: Tensor, valid: Tensor | None = None
    ) -> list[dict]:
        """Return the rows that are compared, image by image.

        Args:
            student (Tensor): As in :meth:`forward`.
            teacher (Tensor): As in :meth:`forward`.
            valid (Tensor, optional): As in :meth:`forward`.

        Returns:
            list[dict]: Of each image ``source`` (L, D'), the teacher's rows
            after the norm, and ``target`` (L, D), the student's after the
            projector, row by row of the same cell; ``cells`` (L, 2), row and
            column of each in the ``grid``, a tuple of rows and columns; and
            ``places_student``, whether the loss brings the student's rows to
            the teacher's. L is zero where no cell is valid.

        Raises:
            ConfigError: As in :meth:`forward`, but for invalid images.
        """
        student, teacher, chosen = self._align(student, teacher, valid)
        numbers = chosen.sum(dim=(1, 2)).tolist()
        target, source = (
            rows.split(numbers)
            for rows in self._rows(student, teacher, chosen)
        )
        cells = chosen.nonzero()[:, 1:].split(numbers)
        same = dict(
            grid=tuple(chosen.shape[1:]),
            places_student=getattr(self.loss, 'places_student', True),
        )
        return [
            dict(source=s, target=t, cells=c, **same)
            for s, t, c in zip(source, target, cells, strict=True)
        ]

    def _align(self, student, teacher, valid):
        """Both maps on one grid, and which locations of it are compared."""
        student, teacher = self._to_one_grid(student, teacher)
        student = self._project(student)
        return student, teacher, self._choose(student, valid)

    def _rows(self, student, teacher, chosen):
        """Rows (N, D) of both sides as the loss takes them."""
        student, teacher = (
            features.movedim(1, -1)[chosen] for features in (student, teacher)
        )
        if self.source_norm is not None:
            teacher = apply_source_norm(
                self.source_norm, teacher, self._norm_place
            )
        return student, teacher

    def _check_width(self, student, teacher):
        widths = student.shape[1], teacher.shape[1]
        one_space = getattr(self.loss, 'shared_space', False)
        if one_space and widths[0] != widths[1]:
            raise ConfigError(
                f'{self.where}: {type(self.loss).__name__} compares student '
                f'with teacher directly, but their locations are {widths[0]} '
                f'and {widths[1]} wide. Set {self.where}.projector='
                "dict(type='Conv2d', in_channels=..., "
                f'out_channels={widths[1]}, kernel_size=1).'
            )

    def _to_one_grid(self, student, teacher):
        grids = dict(
            student=tuple(student.shape[2:]), teacher=tuple(teacher.shape[2:])
        )
        if self.grid is None:
            if grids['student'] != grids['teacher']:
                raise ConfigError(
                    f'{self.where}: the map of the student has '
                    f'{_size(grids["student"])} cells (rows x columns), that '
                    f'of the teacher {_size(grids["teacher"])}. Set '
                    f"{self.where}.grid='student', 'teacher' or (rows, "
                    'columns) to bring both to one grid, or choose another '
                    'stage or teacher_stage.'
                )
            return student, teacher
        grid = grids.get(self.grid, self.grid)
        return resample(student, grid), resample(teacher, grid)

    def _project(self, student):
        if self.projector is None:
            return student
        projected = self.projector(student)
        shape = getattr(projected, 'shape', ())
        if len(shape) != 4 or shape[2:] != student.shape[2:]:
            raise ConfigError(
                f'{self.where}.projector must keep the grid, from (B, C, H, '
                f"W) to (B, C', H, W), but makes "
                f'{tuple(shape) or type(projected).__name__} of '
                f'{tuple(student.shape)}. Use a convolution such as '
                "dict(type='Conv2d', in_channels=..., out_channels=..., "
                'kernel_size=1).'
            )
        return projected

    def _choose(self, student, valid):
        """Tell which locations are compared, booleans (B, H, W)."""
        grid = student.shape[2:]
        chosen = torch.ones(
            len(student), *grid, dtype=torch.bool, device=student.device
        )
        if valid is not None:
            share = F.adaptive_avg_pool2d(valid.float(), grid)[:, 0]
            # A share that is exactly the least one may be rounded.
            chosen = share > self.min_valid - 1e-4
        number = self.locations_per_image
        is_few = number is not None and number < chosen[0].numel()
        if not (is_few and self.training):
            return chosen
        draws = torch.rand(chosen.shape, device=chosen.device)
        draws = draws.masked_fill(~chosen, -1).flatten(1)
        drawn = torch.zeros_like(draws, dtype=torch.bool)
        drawn.scatter_(1, draws.topk(number, dim=1).indices, True)
        return chosen & drawn.view_as(chosen)

    def _left_out(self, chosen, group_ids):
        """What a location is not compared with, as the losses take it."""
        image_of_row = chosen.nonzero()[:, 0]
        left_out = {}
        if group_ids is not None:
            left_out['group_ids'] = group_ids[image_of_row]
        if self.candidates == 'others':
            # An image is, at least, a group of its own.
            left_out.setdefault(
                'group_ids', _number_images(image_of_row, chosen)
            )
            return left_out
        if self.candidates == 'image':
            left_out = dict(within_blocks=True)
        if left_out:
            left_out['block_ids'] = _number_images(image_of_row, chosen)
        if self.exclusion_radius:
            left_out['excluded'] = neighbours(chosen, self.exclusion_radius)
        return left_out


def build_dense(dense: dict[str, dict] | None) -> ModuleDict:
    """Build named comparisons of feature maps.

    Args:
        dense (dict[str, dict], optional): Arguments of
            :class:`DenseComparison`, by name; None for one that an inherited
            config has.

    Raises:
        ConfigError: A name or an argument is none.
    """
    # mmengine's ModuleDict, unlike torch's, initialises what it holds.
    modules = ModuleDict()
    for name, cfg in (dense or {}).items():
        if cfg is None:  # how a config drops one that it inherits
            continue
        if not str(name).isidentifier() or hasattr(modules, name):
            raise ConfigError(
                f'model.dense: {name!r} cannot be a name here. Expected '
                "letters, digits and '_', and no attribute of a torch module."
            )
        try:
            modules[name] = DenseComparison(name, **cfg)
        except TypeError as error:
            raise ConfigError(
                f'model.dense.{name}={cfg}: {error}. Expected the '
                'arguments of DenseComparison, at least loss; see '
                'docs/config_reference.md.'
            ) from error
    return modules


def resample(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bring maps to a grid: averages downwards, bilinear upwards.

    Args:
        features (Tensor): (B, C, H, W).
        grid (tuple[int, int]): Rows and columns.

    Returns:
        Tensor: (B, C, rows, columns); the maps themselves if they fit.
    """
    grid = tuple(grid)
    smaller = tuple(map(min, grid, features.shape[2:]))
    if smaller != tuple(features.shape[2:]):
        features = F.adaptive_avg_pool2d(features, smaller)
    if smaller != grid:
        features = F.interpolate(features, grid, mode='bilinear')
    return features


def neighbours(chosen: Tensor, radius: int) -> Tensor:
    """List the pairs of near locations of an image.

    Args:
        chosen (Tensor): Booleans (B, H, W): locations that are rows, in this
            order.
        radius (int): The largest distance in rows and in columns.

    Returns:
        Tensor: Integers (E, 2), indices of rows; both orders of a pair, none
        of a location with itself.
    """
    number, height, width = chosen.shape
    device = chosen.device
    rows = torch.full((number, height, width), -1, device=device)
    rows[chosen] = torch.arange(int(chosen.sum()), device=device)
    # A frame of -1: what lies beyond the image is no location.
    padded = F.pad(rows, [radius] * 4, value=-1)
    windows = padded.unfold(1, height, 1).unfold(2, width, 1)
    windows = windows.flatten(3).flatten(1, 2)
    anchors = rows.flatten(1)[:, None].expand_as(windows)
    near = (anchors >= 0) & (windows >= 0) & (anchors != windows)
    return torch.stack([anchors[near], windows[near]], dim=1)


def _number_images(image_of_row, chosen):
    """Numbers of the rows' images, that no other process has."""
    sizes = batch_sizes(len(chosen), chosen.device)
    return own_slice(sizes).start + image_of_row


def _check_grid(grid, where):
    if grid is None or grid in ('student', 'teacher'):
        return grid
    is_pair = isinstance(grid, (tuple, list)) and len(grid) == 2
    if is_pair and all(_is_integer(side, 1) for side in grid):
        return tuple(grid)
    raise ConfigError(
        f"{where}.grid must be None, 'student', 'teacher' or two positive "
        f'integers (rows, columns), but got {grid!r}.'
    )


def _is_integer(value, least):
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return is_integer and value >= least


def _size(grid):
    return 'x'.join(map(str, grid))
