"""What mmdet's Deformable DETR lacks: other widths, cheap memory, mixed precision."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmdet.models import DeformableDETR
from mmdet.models.layers.transformer import DeformableDetrTransformerEncoderLayer
from mmdet.registry import MODELS
from torch import Tensor, nn

from mpvit.errors import UserError
from mpvit.models.backbone import output_channels, small_maps
from mpvit.models.layers import run, without_autocast
from mpvit.models.lean import LeanFFN, use_lean_layers


# Not in `mpvit.models.lean`, which backbones import: mmdet.models may need `mpvit.register` first.
class LeanEncoderLayer(DeformableDetrTransformerEncoderLayer):
    """mmdet's layer of Deformable DETR's encoder, which keeps one map of tokens less for training.

    Parameters and names are mmdet's.
    """

    def forward(
        self, query: Tensor, query_pos: Tensor, key_padding_mask: Tensor, **kwargs: Any
    ) -> Tensor:
        """Transform tokens ``(B, N, C)``; arguments as mmdet's."""
        query = self.self_attn(
            query=query,
            key=query,
            value=query,
            query_pos=query_pos,
            key_pos=query_pos,
            key_padding_mask=key_padding_mask,
            **kwargs,
        )
        output: Tensor = self.norms[1](self.ffn(query, norm=self.norms[0]))
        return output


def use_lean_encoder(encoder: nn.Module) -> None:
    """Give the layers of an encoder with `LeanFFN` the class that keeps less, in place."""
    layer: Any
    for layer in encoder.modules():
        if (
            type(layer) is DeformableDetrTransformerEncoderLayer
            and type(layer.ffn) is LeanFFN
            and type(layer.norms[0]) is nn.LayerNorm
        ):
            layer.__class__ = LeanEncoderLayer


@MODELS.register_module()
class AnyWidthDeformableDETR(DeformableDETR):
    """Deformable DETR whose two-stage variant works at any embedding width.

    mmdet writes 128 features per box coordinate into the position embedding of proposals, which
    fits ``embed_dims=256`` only. Parameters, names and results at 256 are unchanged.

    Where ``neck.in_channels`` is left out or ``'auto'``, the neck takes what the backbone gives.

    ``encoder.num_cp`` is the number of encoder layers whose activations are computed again in the
    backward pass instead of stored, as in mmdet but with torch's own checkpointing. Under autocast
    the decoder, which is small, keeps the precision of the weights.
    """

    encoder: Any  # mmdet keeps the config here until it builds the layers

    def __init__(self, *args: Any, neck: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        queries = kwargs.get('num_queries', 1)
        if not isinstance(queries, int) or queries < 1:
            raise ValueError(f'num_queries is a whole number from 1, not {queries!r}')
        unknown = neck is not None and neck.get('in_channels', 'auto') == 'auto'
        super().__init__(*args, neck=None if unknown else neck, **kwargs)
        if neck is not None and unknown:
            channels = output_channels(self.backbone)
            self.neck = MODELS.build({**neck, 'in_channels': channels})

    def _init_layers(self) -> None:
        count = max(self.encoder.get('num_cp', 0), 0)
        # mmdet's own encoder would ask for fairscale
        self.encoder = {key: value for key, value in self.encoder.items() if key != 'num_cp'}
        super()._init_layers()
        for layer in self.encoder.layers[:count]:
            # partial, because a copy of the model (EMA) has to call the copied layer
            layer.forward = partial(run, layer.forward, with_cp=True)
        use_lean_layers(self)
        use_lean_encoder(self.encoder)

    def pre_transformer(
        self, mlvl_feats: Sequence[Tensor], batch_data_samples: Any = None
    ) -> tuple[dict, dict]:
        """Inputs of encoder and decoder from maps ``(B, channels, H, W)``; see mmdet.

        Up to the decoder the sizes of the levels are numbers. mmdet computes with them in Python:
        as a tensor they would be fetched from the GPU one by one, and end a compiled graph.
        """
        with _sums_of_ones():
            encoder_inputs, decoder_inputs = super().pre_transformer(mlvl_feats, batch_data_samples)
        sizes = tuple((maps.size(2), maps.size(3)) for maps in mlvl_feats)
        encoder_inputs['spatial_shapes'] = sizes
        return encoder_inputs, decoder_inputs

    def pre_decoder(self, memory: Tensor, *args: Any, **kwargs: Any) -> tuple[dict, dict]:
        """Inputs of decoder and head from the encoded ``(B, points, channels)``; see mmdet."""
        with without_autocast(memory):
            exact = memory.to(self.level_embed.dtype)
            decoder_inputs, head_inputs = super().pre_decoder(exact, *args, **kwargs)
            # what the decoder looks up has the precision of its weights, lower in some inference
            weight = self.decoder.layers[0].cross_attn.value_proj.weight
            decoder_inputs['memory'] = memory.to(weight.dtype)
            return decoder_inputs, head_inputs

    def forward_decoder(self, query: Tensor, *args: Any, **kwargs: Any) -> dict:
        """Inputs of the head from queries ``(B, queries, channels)``; see mmdet."""
        with without_autocast(query):
            return super().forward_decoder(query, *args, **kwargs)

    def get_proposal_pos_embed(
        self, proposals: Tensor, num_pos_feats: int | None = None, temperature: int = 10000
    ) -> Tensor:
        """Sine embedding of proposal boxes.

        Args:
            proposals: Unnormalised ``(cx, cy, w, h)``, shape ``(B, queries, 4)``.
            num_pos_feats: Features per coordinate; None for half the embedding width.
            temperature: Base of the wavelengths.

        Returns:
            Tensor of shape ``(B, queries, 4 * num_pos_feats)``.
        """
        return DeformableDETR.get_proposal_pos_embed(
            proposals, num_pos_feats or self.embed_dims // 2, temperature
        )


@contextmanager
def _sums_of_ones() -> Iterator[None]:
    """While it lasts, torch does not refuse sums on a GPU whose order is open.

    The position encoding counts unmasked positions with ``cumsum`` in float32. Such sums are exact
    in any order, but torch refuses them where only deterministic algorithms are allowed.
    """
    strict = torch.are_deterministic_algorithms_enabled()
    if not strict:
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warn_only)


def check_neck(detector: Any, settings: Mapping[str, Any], config: str) -> None:
    """Make sure that the neck of a detector takes what its backbone gives.

    Without effect where the model has none of both, or where the backbone takes no small images.

    Args:
        detector: Any detector of mmdet, on the CPU.
        settings: Its config, of which ``neck.in_channels`` is compared.
        config: File of the config, for the error.

    Raises:
        UserError: The neck does not; with the channels that belong into the config.
    """
    neck = settings.get('neck')
    wanted = neck.get('in_channels') if isinstance(neck, Mapping) else None
    if not isinstance(wanted, (list, tuple)):
        return
    try:
        maps = small_maps(detector.backbone)
    except Exception:  # any backbone of any library: it may want larger images
        return
    given = [features.shape[1] for features in maps]
    if given == list(wanted):
        return
    try:  # some necks count from the last map
        with torch.no_grad():
            copy.deepcopy(detector.neck).eval()(maps)
    except (RuntimeError, AssertionError) as error:
        auto = " or 'auto'" if isinstance(detector, AnyWidthDeformableDETR) else ''
        raise UserError(
            f'config {config}: model.neck.in_channels is {list(wanted)}, but model.backbone gives '
            f'{given} channels; set model.neck.in_channels to {given}{auto}'
        ) from error
