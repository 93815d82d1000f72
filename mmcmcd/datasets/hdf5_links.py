"""HDF5 objects that are really in their file.

HDF5 may fetch parts of a file from any other file that it names: by external
links, external storage and virtual data sets. Whoever made the file would
choose what is read.
"""

# Links that point at links; a circle of them is found so.
_MOST_STEPS = 100


def get_inside(file, name):
    """Look up an object by its name, without leaving the file.

    h5py itself opens the other file as soon as the name is looked up.

    Args:
        file (h5py.File): Open file.
        name (str): Of a group or data set, e.g. 'range/k1'.

    Returns:
        h5py.HLObject | None: The object; None if there is none, or the way
        to it leaves the file.
    """
    import h5py

    found, parts = file, _parts(name)
    for _ in range(_MOST_STEPS):
        if not parts:
            return found
        part = parts.pop(0)
        if not isinstance(found, h5py.Group):
            return None
        link = found.get(part, getlink=True)
        if isinstance(link, h5py.HardLink):
            found = found[part]
        elif isinstance(link, h5py.SoftLink):
            # From the root, or from the group that the link is in.
            if link.path.startswith('/'):
                found = file
            parts = _parts(link.path) + parts
        else:  # an external link, or none
            return None
    return None


def find_outside_storage(dataset):
    """Say which other files hold the values of a data set.

    Args:
        dataset (h5py.Dataset): Of an open file.

    Returns:
        list[str]: Their names; empty if all values are in its own file.
    """
    outside = [entry[0] for entry in dataset.external or ()]
    if dataset.is_virtual:
        outside += [
            source.file_name
            for source in dataset.virtual_sources()
            if source.file_name != '.'
        ]
    return outside


def _parts(name):
    return [part for part in name.split('/') if part not in ('', '.')]
