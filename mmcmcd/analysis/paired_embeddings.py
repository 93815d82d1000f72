"""Embeddings of pairs, file by file, and what finds what among them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..evaluation.functional.cosine import unit_rows

# Rows of the similarity matrix that exist at a time.
_CHUNK = 1024


@dataclass
class EmbeddedSide:
    """The files of one side, each once, though several pairs may share it.

    Attributes:
        files (list[str]): The U files.
        embeddings (Tensor): (U, D), rows of length one.
    """

    files: list[str]
    embeddings: Tensor


@dataclass
class EmbeddedPairs:
    """Held-out pairs as the two networks see them.

    Attributes:
        sides (dict[str, EmbeddedSide]): ``source``, by the teacher, and
            ``target``, by the student.
        links (dict[str, np.ndarray]): For either side (N, ): which of its
            files pair ``i`` consists of.
        labels (np.ndarray | None): Classes of the N pairs, where known.
        classes (Sequence[str]): Names of the classes, empty where unknown.
    """

    sides: dict[str, EmbeddedSide]
    links: dict[str, np.ndarray]
    labels: np.ndarray | None
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.links['source'])

    def subset(self, indices: np.ndarray) -> 'EmbeddedPairs':
        """Keep some pairs, and the files that they consist of.

        Args:
            indices (np.ndarray): Which pairs.

        Returns:
            EmbeddedPairs: Those alone.
        """
        sides, links = {}, {}
        for name, side in self.sides.items():
            kept, links[name] = np.unique(
                self.links[name][indices], return_inverse=True
            )
            sides[name] = EmbeddedSide(
                [side.files[i] for i in kept],
                side.embeddings[torch.from_numpy(kept)],
            )
        labels = None if self.labels is None else self.labels[indices]
        return EmbeddedPairs(sides, links, labels, self.classes)


@dataclass
class Ranking:
    """What every query of one side finds among the files of the other.

    Attributes:
        top (np.ndarray): (Q, k) the most similar files, best first.
        similarity (np.ndarray): (Q, k) cosines.
        is_partner (np.ndarray): (Q, k) bool, whether such a file and the
            query are a pair.
        partner (np.ndarray): (Q, ) the most similar partner.
        rank (np.ndarray): (Q, ) its rank, from 1. Ties count against it, as
            in :func:`mmcmcd.evaluation.functional.retrieval_figures`.
    """

    top: np.ndarray
    similarity: np.ndarray
    is_partner: np.ndarray
    partner: np.ndarray
    rank: np.ndarray


def unique_files(
    pairs: list[dict], classes: Sequence[str] = ()
) -> EmbeddedPairs:
    """Collect the embeddings of pairs, those of a shared file once.

    Args:
        pairs (list[dict]): ``source`` and ``target`` (the files),
            ``source_row`` and ``target_row`` (Tensor (D, )) and ``label``
            (int | None) of every pair.
        classes (Sequence[str]): Names of the classes. Defaults to ().

    Returns:
        EmbeddedPairs: The pairs.

    Raises:
        ConfigError: The two sides are embedded in spaces of different size,
            or an embedding is not finite.
    """
    sides, links = {}, {}
    for name in ('source', 'target'):
        files, first, links[name] = np.unique(
            [pair[name] for pair in pairs],
            return_index=True,
            return_inverse=True,
        )
        rows = torch.stack([pairs[i][f'{name}_row'] for i in first])
        sides[name] = EmbeddedSide(files.tolist(), unit_rows(rows))
    widths = {n: side.embeddings.shape[1] for n, side in sides.items()}
    if widths['source'] != widths['target']:
        raise ConfigError(
            f'The teacher embeds in {widths["source"]} dimensions and the '
            f'student in {widths["target"]}: they cannot be compared. '
            'Distil with CMC or cross CMD, which need one space (set '
            'model.student_projector.out_channels or the like).'
        )
    labels = [pair['label'] for pair in pairs]
    known = all(label is not None for label in labels)
    return EmbeddedPairs(
        sides, links, np.array(labels) if known else None, classes
    )


def rank_partners(
    pairs: EmbeddedPairs, query_side: str, gallery_side: str, topk: int
) -> Ranking:
    """Rank the files of one side by similarity to each file of the other.

    Args:
        pairs (EmbeddedPairs): The pairs.
        query_side (str): 'source' or 'target'.
        gallery_side (str): The other one.
        topk (int): How many to keep; fewer where there are not so many.

    Returns:
        Ranking: One row per file of the query side.
    """
    queries = pairs.sides[query_side].embeddings
    gallery = pairs.sides[gallery_side].embeddings
    of_query = torch.from_numpy(pairs.links[query_side])
    of_gallery = torch.from_numpy(pairs.links[gallery_side])
    parts = []
    for start in range(0, len(queries), _CHUNK):
        similarity = queries[start : start + _CHUNK] @ gallery.T
        partners = torch.zeros_like(similarity, dtype=torch.bool)
        here = (of_query >= start) & (of_query < start + _CHUNK)
        partners[of_query[here] - start, of_gallery[here]] = True
        top = similarity.topk(min(topk, len(gallery)), dim=1)
        best = similarity.masked_fill(~partners, -2).max(dim=1)
        # One rounding error apart is a tie.
        ahead = similarity >= best.values[:, None] - 1e-6
        parts.append(
            (
                top.indices,
                top.values,
                partners.gather(1, top.indices),
                best.indices,
                1 + (ahead & ~partners).sum(dim=1),
            )
        )
    return Ranking(
        *(torch.cat(part).numpy() for part in zip(*parts, strict=True))
    )
