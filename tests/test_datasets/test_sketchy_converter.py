import csv
from collections import Counter

import pytest

from mmcmcd.datasets import SketchyPairs
from mmcmcd.datasets.converters import list_sketchy_pairs, write_table
from mmcmcd.errors import ConfigError, DatasetError

TX = 'tx_000000000000'


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def make(root, above='', rendering=TX, photos=20, sketches=3):
    """Two classes; the last photo of each has no sketch."""
    for name, synset in (('airplane', 'n1'), ('car_(sedan)', 'n2')):
        for i in range(photos):
            photo = f'{name}/{synset}_{i}'
            touch(root / above / 'photo' / rendering / f'{photo}.jpg')
            for k in range(1, sketches + 1) if i < photos - 1 else ():
                path = root / above / 'sketch' / rendering
                touch(path / f'{photo}-{k}.png')
    return root


def annotate(folder, **lists):
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        path = folder / f'{name.replace("_", "-")}.txt'
        path.write_text('\r\n'.join(lines) + '\n')
    return folder


def photos_of(rows, split):
    return {row['photo'] for row in rows if row['split'] == split}


# -------------------------------------------------------------------- layout


@pytest.mark.parametrize('above', ['', '256x256', 'rendered_256x256/256x256'])
@pytest.mark.parametrize('rendering', ['', TX])
def test_layouts(tmp_path, above, rendering):
    make(tmp_path, above, rendering)
    summary = list_sketchy_pairs(tmp_path)
    assert len(summary.rows) == 2 * 19 * 3 and summary.photos == 40
    place = '/'.join(filter(None, [above, '{}', rendering]))
    first = summary.rows[0]
    assert first['photo'] == place.format('photo') + '/airplane/n1_0.jpg'
    assert first['sketch'] == place.format('sketch') + '/airplane/n1_0-1.png'
    assert first['class'] == 'airplane'
    assert '40 photos (2 without a sketch), 114 sketches' in summary.format()
    assert '3 to 3, mean 3.00' in summary.format()


def test_rendering_is_chosen(tmp_path):
    make(tmp_path)
    make(tmp_path, rendering='tx_000100000000', photos=5)
    assert len(list_sketchy_pairs(tmp_path).rows) == 114
    rows = list_sketchy_pairs(tmp_path, rendering='tx_000100000000').rows
    assert len(rows) == 2 * 4 * 3 and 'tx_0001' in rows[0]['sketch']
    with pytest.raises(DatasetError, match=f"'tx_7'; it has {TX}, tx_0001"):
        list_sketchy_pairs(tmp_path, rendering='tx_7')


# --------------------------------------------------------------------- split


def test_split_without_a_list(tmp_path):
    rows = list_sketchy_pairs(make(tmp_path)).rows
    train, test = photos_of(rows, 'train'), photos_of(rows, 'test')
    assert not train & test
    # round(0.1 * 19) of every class
    assert Counter(p.split('/')[2] for p in test) == {
        'airplane': 2,
        'car_(sedan)': 2,
    }
    # It depends on the names of the photos alone.
    other = list_sketchy_pairs(make(tmp_path / 'b', '256x256', '', 20, 1))
    names = {path.split('/')[-1] for path in test}
    others = photos_of(other.rows, 'test')
    assert {path.split('/')[-1] for path in others} == names
    assert 'our choice' in other.format()


@pytest.mark.parametrize('photos, number', [(2, 0), (3, 1), (6, 1), (31, 3)])
def test_share_of_small_classes(tmp_path, photos, number):
    rows = list_sketchy_pairs(make(tmp_path, photos=photos)).rows
    assert len(photos_of(rows, 'test')) == 2 * number


@pytest.mark.parametrize('place', ['info', 'elsewhere'])
def test_official_list(tmp_path, place):
    make(tmp_path / 'data')
    listed = ['airplane/n1_3.jpg', 'car_(sedan)/n2_4.jpg', 'zebra/n9_9.jpg']
    root = tmp_path / ('data' if place == 'info' else '')
    info = annotate(root / place, testset=listed)
    summary = list_sketchy_pairs(
        tmp_path / 'data', None if place == 'info' else info
    )
    test = {path.split('/')[-1] for path in photos_of(summary.rows, 'test')}
    assert test == {'n1_3.jpg', 'n2_4.jpg'}
    text = summary.format()
    assert 'test: 6 pairs of 2 photos, 2 classes' in text
    assert 'testset.txt' in text
    assert '1 photos of testset.txt are not here' in text
    assert 'invalid-error.txt is not there' in text


def test_invalid_sketches(tmp_path):
    make(tmp_path)
    annotate(
        tmp_path / 'info',
        testset=['airplane/n1_3.jpg'],
        invalid_error=['n1_3-1', 'n2_0-2 ', 'n7_7-7'],
        invalid_ambiguous=['airplane/n1_4-3.png', 'n1_5-3'],
        invalid_pose=['n1_6-1'],
    )
    summary = list_sketchy_pairs(tmp_path)
    ids = {row['sketch'].split('/')[-1] for row in summary.rows}
    assert len(ids) == 114 - 4
    assert not ids & {'n1_3-1.png', 'n2_0-2.png', 'n1_4-3.png', 'n1_5-3.png'}
    text = summary.format()
    assert 'left out: 2 sketches listed in invalid-error.txt' in text
    assert 'left out: 2 sketches listed in invalid-ambiguous.txt' in text
    kept = list_sketchy_pairs(tmp_path, keep_invalid=True)
    assert len(kept.rows) == 114 and 'left out' not in kept.format()


def test_all_sketches_of_a_class_are_invalid(tmp_path):
    make(tmp_path, photos=3)
    listed = [f'n1_{i}-{k}' for i in range(2) for k in (1, 2, 3)]
    annotate(tmp_path / 'info', testset=[], invalid_error=listed)
    with pytest.raises(DatasetError, match='1 classes.*airplane.*--keep-inv'):
        list_sketchy_pairs(tmp_path)


def same_names(root):
    """Photos 0, 1, 2 and three sketches of each, in two classes."""
    for name in ('apple', 'cup'):
        for i in range(3):
            touch(root / f'photo/{name}/{i}.jpg')
            for k in (1, 2, 3):
                touch(root / f'sketch/{name}/{i}-{k}.png')
    return root


def test_classes_with_the_same_names(tmp_path):
    root = same_names(tmp_path)
    annotate(
        tmp_path / 'info',
        testset=['apple/0.jpg', 'photo/cup/2.JPG'],
        invalid_error=['apple/1-1.png', 'cup/0-3'],
        invalid_ambiguous=['cup/0-3', 'cup/0-2'],
    )
    summary = list_sketchy_pairs(root)
    test = photos_of(summary.rows, 'test')
    assert test == {'photo/apple/0.jpg', 'photo/cup/2.jpg'}
    every = {p.relative_to(root).as_posix() for p in root.glob('sketch/*/*')}
    assert every - {row['sketch'] for row in summary.rows} == {
        'sketch/apple/1-1.png',
        'sketch/cup/0-3.png',
        'sketch/cup/0-2.png',
    }
    assert list(summary.dropped.values()) == [2, 1]


@pytest.mark.parametrize(
    'lists, words',
    [
        (
            dict(testset=['0.jpg', 'cup/1.jpg']),
            r"testset.txt' has 1 names.*: '0' \(apple/0, cup/0\)\. Write",
        ),
        (
            # The first list leaves but one of that name.
            dict(
                testset=['cup/1.jpg'],
                invalid_error=['apple/1-1'],
                invalid_ambiguous=['1-1'],
            ),
            r"invalid-ambiguous.txt' has 1 .*'1-1' \(apple/1-1, cup/1-1\)",
        ),
    ],
)
def test_name_of_several_classes_is_refused(tmp_path, lists, words):
    annotate(tmp_path / 'info', **lists)
    with pytest.raises(DatasetError, match=words):
        list_sketchy_pairs(same_names(tmp_path))


def test_list_in_another_encoding(tmp_path):
    make(tmp_path)
    info = annotate(tmp_path / 'info', testset=[])
    (info / 'testset.txt').write_bytes('caf\xe9/n1_0.jpg'.encode('latin-1'))
    with pytest.raises(DatasetError, match=r"testset.txt'.*as UTF-8"):
        list_sketchy_pairs(tmp_path)


def test_lists_of_another_set(tmp_path):
    make(tmp_path)
    info = annotate(tmp_path / 'info', testset=['a/b.jpg'])
    with pytest.raises(DatasetError, match='names none of the 38 photos'):
        list_sketchy_pairs(tmp_path)
    (info / 'testset.txt').unlink()
    with pytest.raises(ConfigError, match=r'has no testset\.txt'):
        list_sketchy_pairs(tmp_path, info)


# -------------------------------------------------------------------- faults


def test_all_faults_in_one_message(tmp_path):
    root = make(tmp_path)
    photo, sketch = root / 'photo' / TX, root / 'sketch' / TX
    (photo / 'airplane/n1_3.jpg').unlink()
    touch(sketch / 'airplane/copy.png')
    touch(photo / 'airplane/n1_4.jpeg')
    (photo / 'zebra').mkdir()
    (sketch / 'ant').mkdir()
    with pytest.raises(DatasetError) as error:
        list_sketchy_pairs(root)
    message = str(error.value)
    assert '2 classes without a sketch: ant, zebra' in message
    assert (
        '3 sketches without their photo: airplane/n1_3-1, airplane/n1_3-2, '
        'airplane/n1_3-3' in message
    )
    assert '1 sketches not named <photo>-<number>: airplane/copy' in message
    assert '1 images with several files: airplane/n1_4' in message


def test_classes_that_do_not_fit(tmp_path):
    make(tmp_path)
    names = ['airplane', 'car_(sedan)']
    assert list_sketchy_pairs(tmp_path, classes=names).rows
    with pytest.raises(DatasetError, match=r'the list of.*: car_\(sedan\)'):
        list_sketchy_pairs(tmp_path, classes=names[:1])
    with pytest.raises(DatasetError, match='no image of 1.*: zebra'):
        list_sketchy_pairs(tmp_path, classes=[*names, 'zebra'])


def test_nothing_there(tmp_path):
    with pytest.raises(DatasetError, match="'.*gone'.*does not exist"):
        list_sketchy_pairs(tmp_path / 'gone')
    touch(tmp_path / 'photos/a.jpg')
    with pytest.raises(DatasetError, match=r'no folders photo and.*: photos'):
        list_sketchy_pairs(tmp_path)
    (tmp_path / 'photo').mkdir()
    (tmp_path / 'sketch').mkdir()
    with pytest.raises(DatasetError, match='no sketch at all'):
        list_sketchy_pairs(tmp_path)


# --------------------------------------------------------------------- table


def test_table_is_what_the_data_set_reads(tmp_path):
    summary = list_sketchy_pairs(make(tmp_path))
    assert write_table(summary.rows, tmp_path / 'pairs.csv')
    with open(tmp_path / 'pairs.csv', newline='') as file:
        assert list(csv.DictReader(file)) == summary.rows
    for split, number in dict(train=102, test=12).items():
        assert len(SketchyPairs(split, data_root=str(tmp_path))) == number
    assert not list(tmp_path.glob('.*.part'))


def test_table_is_replaced_only_by_force(tmp_path):
    rows = list_sketchy_pairs(make(tmp_path)).rows
    out = tmp_path / 'pairs.csv'
    assert write_table(rows, out)
    assert not write_table(rows, out)
    before = out.read_text()
    changed = [dict(rows[0], split='test'), *rows[2:]]
    assert changed[0] != rows[0]
    with pytest.raises(
        DatasetError, match='1 of its sketches would go, 0.*, 1 would change'
    ):
        write_table(changed, out)
    assert out.read_text() == before
    assert write_table(changed, out, force=True)
    assert out.read_text() != before
