"""A tiny detector that finds something without being trained, for tests of the page."""

import logging
import shutil
from pathlib import Path

import torch

from mpvit.config.reading import load_config
from mpvit.model_info.info import random_detector

#: Names as strangers may choose them: HTML, JavaScript of Gradio's templates, quotes.
EVIL = '<b id="evil" onclick="1">a"b</b>${window.evil=1}{{x}}`'
CLASSES = ['circle', 'square', EVIL, 'star', 'triangle', '5']


def write_checkpoint(config: Path, folder: Path, name: str = 'epoch_1.pth') -> Path:
    """A work folder with a checkpoint of random weights, whose scores are spread over [0, 1]."""
    cfg = load_config(config)
    torch.manual_seed(0)
    logging.disable(logging.INFO)  # a line for every tensor
    model = random_detector(cfg)
    logging.disable(logging.NOTSET)
    for layer in model.bbox_head.cls_branches:
        torch.nn.init.normal_(layer.weight, std=0.3)
        torch.nn.init.constant_(layer.bias, -1)
    folder.mkdir(parents=True, exist_ok=True)
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / name)
    cfg.dump(folder / config.name)
    shutil.copy(folder / config.name, folder / f'{config.stem}_test.py')  # as a test leaves it
    return folder / name
