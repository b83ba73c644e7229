"""What mmdet's Deformable DETR lacks for widths other than 256."""

from mmdet.models import DeformableDETR
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class AnyWidthDeformableDETR(DeformableDETR):
    """Deformable DETR whose two-stage variant works at any embedding width.

    mmdet writes 128 features per box coordinate into the position embedding of proposals, which
    fits ``embed_dims=256`` only. Parameters, names and results at 256 are unchanged.
    """

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
