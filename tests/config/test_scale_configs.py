"""The configs and the script of docs/scale.md do what the page says."""

import json
import re
from functools import partial

import pytest
from mmdet.registry import DATASETS
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from test_configs import build_model, documented_config

SIDES = [(640, 480), (480, 640), (640, 640)]


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet')


class Images:
    """Stands for a dataset: sizes of images only."""

    metainfo: dict = {}

    def __len__(self):
        return 33

    def get_data_info(self, index):
        return dict(zip(('width', 'height'), SIDES[index % 3], strict=True))

    def __getitem__(self, index):
        return index


def test_one_gpu_recomputes_and_accumulates(root, tmp_path):
    config = documented_config(root, tmp_path, 'scale.md', 'one_gpu')
    model = build_model(config)
    assert all(isinstance(layer.forward, partial) for layer in model.encoder.layers)
    assert model.backbone.stages[0].paths[0].with_cp
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    assert wrapper._accumulative_counts * config.train_dataloader.batch_size == 16
    assert max(group['lr'] for group in wrapper.optimizer.param_groups) == 2e-4


def test_sixty_four_gpus_keep_orientations_apart(root, tmp_path, monkeypatch):
    config = documented_config(root, tmp_path, 'scale.md', 'sixty_four_gpus')
    assert config.optim_wrapper.optimizer.lr == pytest.approx(5.66e-4, rel=1e-3)
    assert config.auto_scale_lr.base_batch_size == 64 * config.train_dataloader.batch_size
    warm_up, steps = config.param_scheduler
    assert not warm_up.by_epoch
    assert steps.end == config.train_cfg.max_epochs == 50
    assert config.train_cfg.val_interval == config.default_hooks.checkpoint.interval == 5
    assert config.default_hooks.checkpoint.save_best  # merged, not replaced

    loader = dict(config.train_dataloader, dataset=Images(), num_workers=0)
    loader['persistent_workers'] = False
    counts = set()
    for rank in range(4):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 4))
        batches = list(Runner.build_dataloader(dict(loader), 0).batch_sampler)
        counts.add(len(batches))
        mixed = [batch for batch in batches[:-1] if len({index % 3 == 1 for index in batch}) > 1]
        assert not mixed
    assert len(counts) == 1


def write_set(path, images):
    entries = [dict(id=i, file_name=f'{i}.jpg', width=64, height=48) for i in range(images)]
    boxes = [
        dict(
            id=i + 1, image_id=i // 2, category_id=i % 3 + 1, bbox=[1, 1, 9, 9], area=81, iscrowd=0
        )
        for i in range(2 * images)
    ]
    categories = [dict(id=i + 1, name=name) for i, name in enumerate('abc')]
    path.write_text(json.dumps(dict(images=entries, annotations=boxes, categories=categories)))


def test_objects365_is_loaded_with_the_classes_of_its_file(root, tmp_path, monkeypatch):
    folder = tmp_path / 'data' / 'objects365' / 'annotations'
    folder.mkdir(parents=True)
    write_set(folder / 'train.json', 20)
    write_set(folder / 'val.json', 4)
    write_set(folder / 'val_5000.json', 3)
    monkeypatch.chdir(tmp_path)
    page = (root / 'docs' / 'scale.md').read_text()
    script = re.search(r'<!-- script: classes -->\s*```python\n(.*?)```', page, re.DOTALL)
    exec(script[1], {})

    config = documented_config(root, tmp_path, 'scale.md', 'objects365')
    train = DATASETS.build(config.train_dataloader.dataset)
    assert sorted(train.get_data_info(i)['img_id'] for i in range(len(train))) == list(range(20))
    assert {len(train.get_data_info(i)['instances']) for i in range(20)} == {2}
    assert config.model.bbox_head.num_classes == len(train.metainfo['classes']) == 3
    for split, images in (('val', 3), ('test', 4)):
        dataset = DATASETS.build(config[f'{split}_dataloader'].dataset)
        assert len(dataset) == images
        assert config[f'{split}_evaluator'].ann_file == dataset.ann_file
    assert config.param_scheduler[0].end == config.train_cfg.max_epochs == 12
