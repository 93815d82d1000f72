import pytest

from mmcmcd.datasets.csv_tables import format_csv, read_csv_table
from mmcmcd.errors import DatasetError


def test_what_is_written_is_read(tmp_path):
    rows = [dict(a='1, "2"', b=''), dict(a='\u00e9', b='x')]
    text = format_csv(('a', 'b'), rows)
    assert text.startswith('a,b\n') and '\r' not in text
    (tmp_path / 't.csv').write_text(text, 'utf-8')
    assert read_csv_table(str(tmp_path / 't.csv'), ('b', 'a')) == rows


@pytest.mark.parametrize(
    'text, words',
    [
        ('', "t.csv' has no row. Mend it."),
        ('a,b\n', "t.csv' has no row. Mend it."),
        ('a,x\n1,2\n', "has no column 'b', 'c'; it has 'a', 'x'. Mend it."),
    ],
)
def test_wrong_table(tmp_path, text, words):
    (tmp_path / 't.csv').write_text(text)
    with pytest.raises(DatasetError) as error:
        read_csv_table(
            str(tmp_path / 't.csv'), 'abc', howto='Get it.', repair='Mend it.'
        )
    assert words in str(error.value)


def test_missing_table(tmp_path):
    with pytest.raises(DatasetError, match='does not exist.*Get it'):
        read_csv_table(str(tmp_path / 't.csv'), 'a', howto='Get it.')
