"""What the documentation names exists; its examples build."""

import inspect
import re
import shlex

import pytest
from conftest import REPO
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope, Registry

import mmcmcd.registry
from mmcmcd.__main__ import find_tools

PAGES = sorted(
    [
        REPO / 'README.md',
        *(REPO / 'docs').rglob('*.md'),
        *(REPO / 'configs').rglob('*.md'),
    ]
)
REFERENCE = REPO / 'docs' / 'config_reference.md'
SHARED_FLAGS = {'--cfg-options': 'add_cfg_options_flag(parser)'}
FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.M | re.S)
LINK = re.compile(r'\]\(([^)\s]+)\)')
PATH = re.compile(
    r'(?<![\w/.])((?:configs|tools|docs|tests)/[\w./-]*\w)(?![\w{*<])'
)
TYPE = re.compile(r'(?<![\w:/])mmcmcd\.([A-Z]\w+)')


def each_page():
    return pytest.mark.parametrize(
        'page', PAGES, ids=lambda p: p.relative_to(REPO).as_posix()
    )


def anchors(text):
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r'^#+ (.+)$', FENCE.sub('', text), re.M)
    return {
        re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        for heading in headings
    }


def blocks(text, language):
    return [body for name, body in FENCE.findall(text) if name == language]


def commands(text):
    """Words of every command line, continued lines joined."""
    for body in blocks(text, 'bash'):
        for line in body.replace('\\\n', ' ').splitlines():
            yield shlex.split(line, comments=True)
    # Commands in tables and in running text.
    for code in re.findall(r'`([^`\n]+)`', FENCE.sub('', text)):
        if re.match(r'(python|bash|make|pip) ', code):
            yield shlex.split(code)


def registered():
    found = {}
    for registry in vars(mmcmcd.registry).values():
        if isinstance(registry, Registry) and registry.scope == 'mmcmcd':
            registry.import_from_location()
            # Other test modules register stand-ins of their own.
            found.update(
                {
                    name: cls
                    for name, cls in registry.module_dict.items()
                    if cls.__module__.startswith('mmcmcd.')
                }
            )
    return found


@each_page()
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCE.sub('', page.read_text())):
        if '://' in link:
            continue
        name, _, anchor = link.partition('#')
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f'{page.name}: {link}'
        if anchor:
            assert anchor in anchors(target.read_text()), link


@each_page()
def test_named_files_and_types_exist(page):
    text = page.read_text()
    # Targets of links are relative to the page and checked above.
    for name in PATH.findall(LINK.sub(']', text)):
        assert (REPO / name).exists(), name
    for name in re.findall(r'mmcmcd::([a-z_]+/\w+\.py)', text):
        assert (REPO / 'configs' / name).is_file(), name
    for name in TYPE.findall(text):
        assert name in registered(), name


@each_page()
def test_commands_have_their_options(page):
    makefile = (REPO / 'Makefile').read_text()
    for words in commands(page.read_text()):
        if words[:1] == ['make']:
            assert re.search(rf'^{words[1]}:', makefile, re.M), words
        script = next((w for w in words if w.startswith('tools/')), None)
        if words[:3] == ['python', '-m', 'mmcmcd']:
            if not words[3].islower() or words[3].startswith('-'):
                continue
            script = find_tools()[words[3]].relative_to(REPO)
        if script is None:
            continue
        source = (REPO / script).read_text()
        if source.startswith('#!'):  # a launcher hands its options on
            name = re.findall(r'(?:TOOLS/)?(\w[\w/]*\.py)\b', source)[-1]
            name = name.removeprefix('tools/')
            source = (REPO / 'tools' / name).read_text()
        for word in words:
            if word.startswith('--'):
                # Some are given to a parser by a function.
                given = SHARED_FLAGS.get(word, f"'{word}'")
                assert given in source, (word, words)
        check_overrides(words)


def check_overrides(words):
    """Every key=value after --cfg-options changes what is there."""
    if '--cfg-options' not in words:
        return
    name = next(w for w in words if re.match(r'configs/.*\.py', w))
    options = words[words.index('--cfg-options') + 1 :]
    options = [word for word in options if '=' in word]
    node = Config.fromfile(REPO / name)
    for option in options:
        *parents, last = option.partition('=')[0].split('.')
        place = node
        for key in parents:
            place = place[int(key) if isinstance(place, list) else key]
        optional = ('num_classes', 'type')
        assert last in place or last in optional, option


@each_page()
def test_example_configs_build(page):
    for body in blocks(page.read_text(), 'python'):
        compile(body, page.name, 'exec')
        if not body.startswith('_base_'):
            continue
        cfg = Config.fromstring(body, '.py')
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            MODELS.build(cfg.model)
            for name in ('train', 'val', 'test'):
                dataset = dict(cfg[f'{name}_dataloader'].dataset)
                DATASETS.build(dict(dataset, lazy_init=True))


def test_reference_is_complete():
    """One section per component, with its arguments and defaults."""
    sections = dict(
        re.findall(
            r'^### `mmcmcd\.(\w+)`$(.*?)(?=^##|\Z)',
            REFERENCE.read_text(),
            re.M | re.S,
        )
    )
    components = registered()
    assert sections.keys() == components.keys()
    for name, cls in components.items():
        if '__init__' in vars(cls):
            assert signature(cls) in sections[name], signature(cls)


def signature(cls):
    """As written in the reference: names and defaults, no annotations."""
    _, *arguments = inspect.signature(cls.__init__).parameters.values()
    words = [str(a.replace(annotation=a.empty)) for a in arguments]
    return f'{cls.__name__}({", ".join(words)})'


def test_table_of_configs_agrees_with_them():
    folder = REPO / 'configs' / 'cmcd'
    rows = re.findall(
        r'^\| \[\w+\]\((\w+\.py)\) .* (\d+) \| (\d+) \|$',
        (folder / 'README.md').read_text(),
        re.M,
    )
    assert {row[0] for row in rows} == {p.name for p in folder.glob('*.py')}
    for name, batch, epochs in rows:
        cfg = Config.fromfile(folder / name)
        assert cfg.train_dataloader.batch_size == int(batch)
        assert cfg.train_cfg.max_epochs == int(epochs)


def test_readme_leads_with_the_two_commands():
    first = '\n'.join((REPO / 'README.md').read_text().splitlines()[:20])
    assert 'make demo' in first and 'make test' in first
    assert 'docs/benchmarks/demo.png' in first
