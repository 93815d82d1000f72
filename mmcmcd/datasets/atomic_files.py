"""Files that are there complete, or not at all."""

import os


def write_bytes(path, content):
    """Write a file at once: it is there complete, or not at all.

    Args:
        path (Path): Where to; folders are made.
        content (bytes): What.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.part')
    part.write_bytes(content)
    os.replace(part, path)


def write_text(path, text):
    """Write a text file at once, see :func:`write_bytes`."""
    write_bytes(path, text.encode())
