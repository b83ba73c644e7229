"""Pictures are written and show what they should."""

import json

import numpy as np
import pytest
from PIL import Image

from mpvit.plots import contact_sheet, plot_curves


def test_curves_of_a_run(tmp_path):
    records = [dict(loss=10 / (i + 1), loss_cls=1.0, lr=1e-3, step=i) for i in range(20)]
    records += [{'coco/bbox_mAP': 0.1 * e, 'step': e} for e in range(3)]
    (tmp_path / 'vis_data').mkdir()
    log = '\n'.join(json.dumps(r) for r in records)
    (tmp_path / 'vis_data' / 'scalars.json').write_text(log)
    picture = Image.open(plot_curves(tmp_path, tmp_path / 'curves.png'))
    assert picture.width > picture.height > 300
    with pytest.raises(FileNotFoundError):
        plot_curves(tmp_path / 'none', tmp_path / 'curves.png')


def test_contact_sheet_draws_detections_above_the_threshold(toy, tmp_path):
    truth = toy / 'annotations' / 'instances_val2017.json'
    image_id = json.loads(truth.read_text())['images'][0]['id']

    def sheet(score):
        detection = dict(image_id=image_id, category_id=1, bbox=[5, 5, 60, 60], score=score)
        (tmp_path / 'det.json').write_text(json.dumps([detection]))
        path = contact_sheet(
            truth, tmp_path / 'det.json', toy / 'val2017', tmp_path / 'sheet.png', columns=3
        )
        return np.asarray(Image.open(path).convert('RGB'), int)

    weak, strong = sheet(0.1), sheet(0.9)
    assert weak.shape == strong.shape
    changed = np.nonzero(np.abs(weak - strong).sum(-1))
    assert len(changed[0]) > 100
    # only within the first of the 2 x 3 cells
    assert changed[0].max() < 0.6 * weak.shape[0]
    assert changed[1].max() < 0.4 * weak.shape[1]
