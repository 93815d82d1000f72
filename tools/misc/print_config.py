"""Print a whole config, with everything it inherits."""

import argparse

import rich.console

from mmcmcd.apis import add_cfg_options_flag, load_config, run_tool


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Print the whole config')
    parser.add_argument(
        'config', help='config file, or mmcmcd::NAME for a packaged one'
    )
    add_cfg_options_flag(parser)
    return parser.parse_args()


def main():
    """Print."""
    args = parse_args()
    cfg = load_config(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    console = rich.console.Console(soft_wrap=True)
    console.print(cfg.pretty_text, markup=False)


if __name__ == '__main__':
    run_tool(main)
