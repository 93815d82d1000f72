"""Show what teacher and student make of held-out pairs.

Writes a retrieval gallery (queries and the most similar files of the other
side, with the rank of the true partner), a 2-D picture of both modalities'
embeddings, and the figures behind both as csv.
"""

import argparse

from mmcmcd.apis import (
    add_cfg_options_flag,
    add_trust_flag,
    at_least,
    run_tool,
)
from mmcmcd.apis.paired_features import DIRECTIONS, visualize_pairs


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config',
        help='distillation config, or mmcmcd::NAME for a packaged one',
    )
    parser.add_argument('checkpoint', help='epoch_*.pth of a run of it')
    parser.add_argument('--out-dir', required=True, help='where files go')
    parser.add_argument(
        '--split',
        choices=['test', 'val'],
        default='test',
        help='which data loader of the config',
    )
    parser.add_argument(
        '--num-queries',
        type=at_least(1),
        default=8,
        help='rows of the gallery, drawn at random (default 8)',
    )
    parser.add_argument(
        '--topk', type=at_least(1), default=5, help='files a query (default 5)'
    )
    parser.add_argument(
        '--direction',
        choices=[*DIRECTIONS, 'both'],
        default='target2source',
        help='which side asks and which answers',
    )
    parser.add_argument(
        '--method',
        choices=['tsne', 'umap'],
        default='tsne',
        help='of the 2-D picture; umap needs the package umap-learn',
    )
    parser.add_argument(
        '--max-pairs',
        type=at_least(1),
        default=1000,
        help='the 2-D picture shows at most so many, drawn at random '
        '(default 1000); retrieval is among all pairs',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of the draws and of the method'
    )
    add_cfg_options_flag(parser)
    add_trust_flag(parser)
    return parser.parse_args()


def main():
    """Draw."""
    args = parse_args()
    both = args.direction == 'both'
    files = visualize_pairs(
        args.config,
        args.checkpoint,
        args.out_dir,
        split=args.split,
        num_queries=args.num_queries,
        topk=args.topk,
        directions=tuple(DIRECTIONS) if both else (args.direction,),
        method=args.method,
        max_pairs=args.max_pairs,
        seed=args.seed,
        cfg_options=args.cfg_options,
    )
    print('\n'.join(files))


if __name__ == '__main__':
    run_tool(main)
