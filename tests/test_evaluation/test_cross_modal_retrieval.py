import pytest
import torch
from mmpretrain.structures import DataSample

from mmcmcd.errors import ConfigError
from mmcmcd.evaluation.functional import retrieval_figures
from mmcmcd.registry import METRICS

PAIR_KEYS = {
    f'retrieval/{direction}_{figure}'
    for direction in ('target2source', 'source2target')
    for figure in ('R@1', 'R@5', 'R@10', 'mAP')
}


def evaluate(source, target, batch=7, groups=None, labels=None, **meta):
    """Run the metric on rows as a loop would, and return its figures."""
    metric = METRICS.build(dict(type='mmcmcd.CrossModalRetrieval'))
    groups = range(len(source)) if groups is None else groups
    samples = []
    for index, (s, t) in enumerate(zip(source, target, strict=True)):
        own = {key: values[index] for key, values in meta.items()}
        sample = DataSample(metainfo=dict(group_index=groups[index], **own))
        sample.source_embedding, sample.target_embedding = s, t
        if labels is not None and labels[index] is not None:
            sample.set_gt_label(labels[index])
        samples.append(sample.to_dict())
    for start in range(0, len(samples), batch):
        metric.process(None, samples[start : start + batch])
    return metric.evaluate(len(samples))


def in_direction(figures, direction):
    name = f'retrieval/{direction}_'
    return {
        key.removeprefix(name): value
        for key, value in figures.items()
        if key.startswith(name)
    }


def sketches(photos=12, each=3, width=6):
    """Photo embeddings, whose photo is whose, and sketch embeddings."""
    torch.manual_seed(0)
    photo = torch.randn(photos, width)
    owner = torch.arange(photos * each) % photos
    sketch = photo[owner] + 0.8 * torch.randn(photos * each, width)
    return photo, owner, sketch


def test_both_directions_of_plain_pairs():
    torch.manual_seed(0)
    source = torch.randn(30, 8)
    target = torch.cat([source[:15], torch.randn(15, 8)])
    figures = evaluate(source, target)
    assert set(figures) == PAIR_KEYS | {'retrieval/neighbours@10'}
    ids = torch.arange(30)
    for direction, rows in (
        ('target2source', (target, source)),
        ('source2target', (source, target)),
    ):
        found = in_direction(figures, direction)
        assert found == pytest.approx(retrieval_figures(*rows, ids, ids))
        assert 50 <= found['R@1'] <= found['R@5'] < 90


@pytest.mark.parametrize('grouped', [True, False])
def test_a_shared_photo_counts_once(grouped):
    photo, owner, sketch = sketches()
    figures = evaluate(
        photo[owner],
        sketch,
        # Without groups the shared file alone says what is relevant.
        groups=(1000 * owner).tolist() if grouped else None,
        source_path=[f'{i}.jpg' for i in owner.tolist()],
        target_path=[f'{i}.png' for i in range(len(sketch))],
    )
    ids = torch.arange(12)
    assert in_direction(figures, 'target2source') == pytest.approx(
        retrieval_figures(sketch, photo, owner, ids)
    )
    assert in_direction(figures, 'source2target') == pytest.approx(
        retrieval_figures(photo, sketch, ids, owner)
    )
    # As often as it has sketches, it would tie with none but take places.
    repeated = retrieval_figures(sketch, photo[owner], owner, owner)
    assert figures['retrieval/target2source_R@5'] > repeated['R@5']


def test_classes_give_figures_of_their_own():
    photo, owner, sketch = sketches()
    labels = owner % 4
    meta = dict(
        groups=owner.tolist(), source_path=[f'{i}' for i in owner.tolist()]
    )
    figures = evaluate(photo[owner], sketch, labels=labels.tolist(), **meta)
    classes = torch.arange(12) % 4
    for direction, arguments in (
        ('target2source', (sketch, photo, labels, classes)),
        ('source2target', (photo, sketch, classes, labels)),
    ):
        expected = retrieval_figures(*arguments)['mAP']
        found = figures.pop(f'retrieval/{direction}_class_mAP')
        assert found == pytest.approx(expected)
    assert figures == evaluate(photo[owner], sketch, **meta)
    # Not of a part of the pairs, and not with several classes per sample.
    for odd in (None, [0, 1]):
        some = [odd, *labels[1:].tolist()]
        assert evaluate(photo[owner], sketch, labels=some, **meta) == figures


def test_two_spaces_or_too_few_pairs():
    rows = torch.randn(12, 8)
    figures = evaluate(rows, torch.randn(12, 4))
    assert list(figures) == ['retrieval/neighbours@10']
    assert set(evaluate(rows[:5], rows[:5])) == PAIR_KEYS
    assert evaluate(rows[:5], torch.randn(5, 4)) == {}


def of_lessons(source, target, owner, **kwargs):
    """The metric on samples as a distiller of several students gives them."""
    metric = METRICS.build(dict(type='mmcmcd.CrossModalRetrieval', **kwargs))
    samples = []
    for index, (s, t) in enumerate(zip(source, target, strict=True)):
        sample = DataSample(metainfo=dict(group_index=index))
        pair = dict(
            source_embedding=s,
            target_embedding=t,
            source_path=f'{owner[index]}.jpg',
        )
        blind = dict(source_embedding=s, target_embedding=torch.zeros(2))
        sample.set_field(dict(sketch=pair, blind=blind), 'lessons')
        samples.append(sample.to_dict())
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_one_lesson_of_several():
    photo, owner, sketch = sketches()
    alone = evaluate(
        photo[owner],
        sketch,
        source_path=[f'{i}.jpg' for i in owner.tolist()],
    )
    figures = of_lessons(photo[owner], sketch, owner, lesson='sketch')
    assert figures == {f'sketch_{key}': value for key, value in alone.items()}
    figures = of_lessons(
        photo[owner], sketch, owner, lesson='blind', prefix='b'
    )
    assert list(figures) == ['b/neighbours@10']


def test_unknown_lesson_is_named():
    rows = torch.randn(4, 2)
    for lesson in (None, 'depth'):
        with pytest.raises(ConfigError, match=r"are \['blind', 'sketch'\]"):
            of_lessons(rows, rows, range(4), lesson=lesson)
    metric = METRICS.build(
        dict(type='mmcmcd.CrossModalRetrieval', lesson='depth')
    )
    with pytest.raises(ConfigError, match='are none. Leave lesson out'):
        metric.process(None, [dict(source_embedding=rows[0])])
