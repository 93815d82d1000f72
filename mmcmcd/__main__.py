"""Run a packaged tool: ``python -m mmcmcd train CONFIG ...``.

An installed package has the tools of the repository too, so that nobody
needs a clone to use them.
"""

import runpy
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_USAGE = 'usage: python -m mmcmcd TOOL [ARGS ...]\n\ntools: {}'


def find_tools():
    """Find the tools that the package, or the repository, holds.

    Returns:
        dict[str, Path]: Script by name, without directories and suffix.
    """
    for root in (_PACKAGE / '.mim' / 'tools', _PACKAGE.parent / 'tools'):
        scripts = {path.stem: path for path in sorted(root.rglob('*.py'))}
        if scripts:
            return scripts
    return {}


def main():
    """Run the tool named first, with the arguments that follow."""
    tools = find_tools()
    usage = _USAGE.format(', '.join(sorted(tools)))
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print(usage)
    elif name not in tools:
        print(f"error: no tool '{name}'.\n{usage}", file=sys.stderr)
        sys.exit(2)
    else:
        sys.argv = [str(tools[name]), *sys.argv[2:]]
        runpy.run_path(str(tools[name]), run_name='__main__')


if __name__ == '__main__':
    main()
