"""Our detectors beside the numbers of the official ones: one error per quantity.

Used by the tests and, through ``python tests/parity_report.py``, for the table in the docs.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import parity_check
import parity_encoding
import parity_fill
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

import mpvit.register  # noqa: F401  (makes mmdet importable)
from mpvit.checkpoints.class_layers import class_layers, uncut
from mpvit.checkpoints.conversion import OTHER_ROWS, to_ours
from mpvit.checkpoints.names import our_name
from mpvit.config.reading import load_config
from mpvit.models import matching
from mpvit.models.matching import Predictions

ROOT = Path(__file__).resolve().parent.parent
PARITY = ROOT / 'tests' / 'data' / 'parity'
CONFIGS = {
    'mpvit_small': 'mpvit_s_ddetr_50e',
    'coat_lite_small': 'coat_lite_s_ddetr_50e',
    'coat_small': 'coat_s_ddetr_50e',
    'r50': 'r50_ddetr_50e',
    'r50_refine': 'r50_ddetr_refine_50e',
    'r50_refine_two_stage': 'r50_ddetr_two_stage_50e',
}
# Recommended by the makers of the fixtures, for float32 and for float64.
TOLERANCES = {
    'maps': (2e-4, 1e-9),
    'reference points': (1e-5, 1e-9),
    'logits': (3e-4, 1e-9),
    'boxes': (1e-4, 1e-9),
    'detection scores': (5e-5, 5e-5),
    'detection boxes (px)': (0.05, 0.05),
    'losses': (1e-4, 1e-6),
    'total loss': (1e-5, 1e-6),
    'gradient norms': (1e-2, 1e-6),
    'gradient norms, boxes only': (4e-2, 1e-6),
    'gradient values': (5e-2, 1e-6),
    'gradient norms of groups': (3e-3, 3e-3),
}
Errors = dict[str, float]


class DetectorParity:
    """One detector with the fixtures' weights, run on the fixtures' batch.

    Args:
        name: A key of `CONFIGS`.
        double: Run in float64 and compare with the float64 numbers, which were made with a float32
            encoding of positions (`parity_encoding`).
        device: Where the model runs, up to logits and boxes; the rest is computed on the CPU.
    """

    def __init__(self, name: str, double: bool = False, device: str = 'cpu') -> None:
        init_default_scope('mmdet')
        self.device = device
        self.double = double
        self.dtype = torch.float64 if double else torch.float32
        self.fixture = parity_check.Fixture(PARITY / f'detector_{name}.npz')
        keys = json.loads((PARITY / 'keys' / f'detector_{name}.json').read_text())
        official = parity_fill.fill_state_dict(keys['keys'], keys['aliases'], seed=0)
        tensors = {key: torch.from_numpy(np.asarray(value)) for key, value in official.items()}
        self.config = load_config(ROOT / 'configs' / 'deformable_detr' / f'{CONFIGS[name]}.py')
        self.model = _build(self.config)
        self.model.load_state_dict(_with_all_channels(tensors))
        self.model.to(device, self.dtype)
        if double:
            parity_encoding.use_official(self.model.positional_encoding)
        self._prepare_batch()
        self.forward()

    def _prepare_batch(self) -> None:
        fixture = self.fixture
        shapes = [tuple(int(n) for n in shape) for shape in fixture['img_shapes']]
        height, width = (max(sizes) for sizes in zip(*shapes, strict=True))
        self.images = torch.zeros(len(shapes), 3, height, width, dtype=self.dtype)
        self.samples = []
        for index, (h, w) in enumerate(shapes):
            pixels = parity_fill.image((3, h, w), int(fixture['img_seeds'][index]))
            self.images[index, :, :h, :w] = torch.from_numpy(pixels)
            original = tuple(int(n) for n in fixture['ori_shapes'][index])
            self.samples.append(
                DetDataSample(
                    metainfo=dict(
                        img_shape=(h, w),
                        ori_shape=original,
                        batch_input_shape=(height, width),
                        scale_factor=(w / original[1], h / original[0]),
                    )
                )
            )
        self.metas = [sample.metainfo for sample in self.samples]

    def forward(self) -> None:
        """Run the model; what it gives replaces what an earlier run gave."""
        model = self.model
        self.maps = model.extract_feat(self.images.to(self.device))
        encoder_inputs, decoder_inputs = model.pre_transformer(self.maps, self.samples)
        encoded = model.forward_encoder(**encoder_inputs)
        self.memory = encoded['memory']
        self.mask = encoder_inputs['feat_mask']
        queries, self.proposals = model.pre_decoder(**encoded)
        decoder_inputs.update(queries)
        self.decoded = model.forward_decoder(**decoder_inputs)
        self.logits, self.boxes = model.bbox_head(**self.decoded)
        self._to_cpu()

    def _to_cpu(self) -> None:
        """Bring what was computed to the CPU; gradients find their way back."""
        self.logits, self.boxes, self.memory = (
            t.cpu() for t in (self.logits, self.boxes, self.memory)
        )
        self.mask = None if self.mask is None else self.mask.cpu()
        self.maps = [maps.cpu() for maps in self.maps]
        self.decoded = dict(
            hidden_states=self.decoded['hidden_states'].cpu(),
            references=[points.cpu() for points in self.decoded['references']],
        )
        self.proposals = {k: v if v is None else v.cpu() for k, v in self.proposals.items()}

    def forward_errors(self) -> Errors:
        """Largest errors of intermediate results and predictions."""
        f64 = self.double
        fixture = self.fixture
        memory = self.memory.detach()
        if self.mask is not None:
            memory = memory.masked_fill(self.mask[..., None], 0)
        # the projected maps and the memory are stored in float32 only
        maps = [] if f64 else [(f'src{i}', m) for i, m in enumerate(self.maps)]
        maps += [] if f64 else [('memory', memory)]
        maps += [('hs', self.decoded['hidden_states'])]
        references = self.decoded['references']
        points = [('init_reference', references[0])]
        points += [('inter_references', torch.stack(list(references[1:])))]
        errors = {
            'maps': max(fixture.slice_error(k, t.detach(), f64) for k, t in maps),
            'reference points': max(fixture.slice_error(k, t.detach(), f64) for k, t in points),
        }
        steps = ((7, 3), (3, 1)) if f64 else ((1, 1), (1, 1))
        for key, name, tensor, (step, channel) in (
            ('logits', 'pred_logits', self.logits[-1], steps[0]),
            ('boxes', 'pred_boxes', self.boxes[-1], steps[1]),
        ):
            expected = fixture[('f64.' if f64 else '') + name]
            actual = tensor.detach().numpy()[:, ::step, ::channel]
            errors[key] = float(np.abs(actual - expected).max())
        return errors

    def detection_errors(self) -> Errors:
        """Errors of the 100 detections of each image, in original pixels, by category id."""
        with torch.no_grad():
            results = self.model.bbox_head.predict_by_feat(
                self.logits, self.boxes, batch_img_metas=self.metas, rescale=True
            )
        scores, boxes = [], []
        for index, result in enumerate(results):
            score, box, lost = self.fixture.detection_error(
                index, result.scores.numpy(), result.labels.numpy(), result.bboxes.numpy()
            )
            assert lost == 0, f'{lost} of 100 detections of image {index} have no counterpart'
            scores.append(score)
            boxes.append(box)
        return {'detection scores': max(scores), 'detection boxes (px)': max(boxes)}

    def _targets(self, tag: str) -> list[InstanceData]:
        targets = []
        for index in range(len(self.samples)):
            prefix = f'target.{tag}.img{index}'
            boxes = torch.from_numpy(self.fixture[f'{prefix}.boxes'].reshape(-1, 4))
            labels = torch.from_numpy(self.fixture[f'{prefix}.labels'])
            targets.append(InstanceData(bboxes=boxes.to(self.dtype), labels=labels.long()))
        return targets

    def _losses(self, tag: str) -> dict[str, Tensor]:
        losses = self.model.bbox_head.loss_by_feat(
            self.logits,
            self.boxes,
            self.proposals['enc_outputs_class'],
            self.proposals['enc_outputs_coord'],
            self._targets(tag),
            self.metas,
        )
        return {_official_loss(name): value for name, value in losses.items()}

    def loss_errors(self) -> Errors:
        """Relative errors of every loss term, for batches with both, one and no labelled image."""
        worst = {'losses': 0.0, 'total loss': 0.0}
        for tag in 'ABC':
            ours = {name: value.item() for name, value in self._losses(tag).items()}
            official = self.fixture.losses(tag, f64=self.double, weighted=True)
            assert ours.keys() == official.keys()
            for name, value in official.items():
                error = abs(ours[name] - value) / max(abs(value), 1e-12)
                # a loss that is exactly 0 there must be 0 here
                worst['losses'] = max(worst['losses'], error if value else abs(ours[name]))
            total = float(self.fixture[('f64.' if self.double else '') + f'loss.{tag}.total'])
            worst['total loss'] = max(
                worst['total loss'], abs(sum(ours.values()) - total) / abs(total)
            )
        return worst

    def match_differences(self) -> int:
        """Pairs of query and target that differ from the official matching, over all layers."""
        costs = self.model.bbox_head.assigner.match_costs
        sizes = matching.image_sizes(self.metas, self.boxes)
        differences = 0
        for tag in 'ABC':
            targets = self._targets(tag)
            batches = {'layer{}': Predictions(self.logits, self.boxes, targets)}
            if self.proposals['enc_outputs_class'] is not None:
                first = [InstanceData(bboxes=t.bboxes, labels=t.labels * 0) for t in targets]
                outputs = (self.proposals[f'enc_outputs_{kind}'] for kind in ('class', 'coord'))
                batches['layerenc'] = Predictions(*(o[None] for o in outputs), first)
            found = matching.match(costs, list(batches.values()), self.metas, sizes)
            for name, pairs in zip(batches, found, strict=True):
                for layer, in_layer in enumerate(pairs.unbind(1)):
                    start = 0
                    for index, target in enumerate(targets):
                        _, query, place = in_layer[:, in_layer[0] == index]
                        ours = set(zip(query.tolist(), (place - start).tolist(), strict=True))
                        start += len(target.bboxes)
                        key = f'match.{tag}.{name.format(layer)}.img{index}'
                        official = self.fixture.z.get(key, np.empty((2, 0))).tolist()
                        differences += len(ours ^ set(zip(*official, strict=True)))
        return differences

    def gradient_errors(self) -> Errors:
        """Errors of the gradients of target set B, by parameter, by value and by group."""
        losses = self._losses('B')
        box_losses = [v for k, v in losses.items() if 'bbox' in k or 'giou' in k]
        errors: Errors = {}
        for prefix, key, terms in (
            ('gradbox', 'gradient norms, boxes only', box_losses),
            ('grad', 'gradient norms', list(losses.values())),
        ):
            self.model.zero_grad()
            torch.stack([term.sum() for term in terms]).sum().backward(retain_graph=True)
            errors[key] = self._gradient_norm_error(prefix)
        errors['gradient values'] = self._gradient_value_error()
        errors['gradient norms of groups'] = self._group_error()
        return errors

    def _gradients(self) -> dict[str, Tensor]:
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        found = {}
        for name in self.fixture['grad.names'].tolist():
            ours = our_name(name)
            if ours is not None and parameters[ours].grad is not None:
                found[name] = parameters[ours].grad.cpu()
        return found

    def _gradient_norm_error(self, prefix: str) -> float:
        gradients = self._gradients()
        official = self.fixture.grad_norms(prefix, f64=self.double)
        floor = 1e-3 * max(official.values())
        assert set(official) <= set(gradients)
        return max(
            abs(gradients[name].norm().item() - norm) / max(norm, floor)
            for name, norm in official.items()
        )

    def _gradient_value_error(self) -> float:
        gradients = self._gradients()
        marker = 'f64.grad.slice.' if self.double else 'grad.slice.'
        errors = []
        for key, expected in self.fixture.z.items():
            if key.startswith(marker):
                name = key.removeprefix(marker)
                gradient = gradients[name]
                if np.any(expected):
                    error = self.fixture.grad_slice_error(name, gradient, f64=self.double)
                else:  # nothing to be relative to: the gradient is 0 there and must be here
                    error = float(gradient.flatten()[:: max(1, gradient.numel() // 64)].abs().max())
                errors.append(error)
        assert errors
        return max(errors)

    def _group_error(self) -> float:
        """Norms of the optimizer's groups, as the config makes them."""
        optimizer = build_optim_wrapper(self.model, self.config.optim_wrapper).optimizer
        backbone = {id(p) for p in self.model.backbone.parameters()}
        sums = dict.fromkeys(('opt_main', 'opt_backbone', 'opt_linear_proj'), 0.0)
        seen: set[int] = set()
        for group in optimizer.param_groups:
            for parameter in group['params']:
                if parameter.grad is None or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                slow = 'opt_backbone' if id(parameter) in backbone else 'opt_linear_proj'
                sums['opt_main' if group['lr'] > 1e-4 else slow] += (
                    parameter.grad.norm().item() ** 2
                )
        names = self.fixture['grad.group_names'].tolist()
        norms = dict(zip(names, self.fixture['grad.group_norms'].tolist(), strict=True))
        return max(abs(total**0.5 - norms[name]) / norms[name] for name, total in sums.items())

    def errors(self) -> Errors:
        """All of the above."""
        found = {**self.forward_errors(), **self.detection_errors(), **self.loss_errors()}
        return {**found, **self.gradient_errors()}


def _with_all_channels(official: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official file under our names, its class layers with 91 channels again."""
    converted = to_ours({'model': official})
    assert converted is not None
    ours, others = converted[0]['state_dict'], converted[0]['meta'][OTHER_ROWS]
    for name, proposals in class_layers(ours).items():
        ours[name] = uncut(ours[name], others[name], proposals)
    return ours


def _build(config: Any) -> nn.Module:
    """The config's detector with 91 channels, without dropout, norms with fixed statistics.

    mmdet returns the proposals' outputs in training mode only, so the mode stays there.
    """
    config.model.backbone.pop('init_cfg', None)
    config.model.backbone.pop('drop_path_rate', None)
    config.model.bbox_head.num_classes = 91
    model = MODELS.build(config.model).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def _official_loss(name: str) -> str:
    """mmdet's name of a loss term to the official one: d3.loss_iou -> loss_giou_3."""
    prefix, _, kind = name.rpartition('.')
    suffix = f'_{prefix[1:]}' if prefix else ''
    if kind.startswith('enc_'):
        kind, suffix = kind.removeprefix('enc_'), '_enc'
    return {'loss_cls': 'loss_ce', 'loss_iou': 'loss_giou'}.get(kind, kind) + suffix
