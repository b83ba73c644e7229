"""The any-width detector against mmdet's at the width both can do."""

import torch
from mmdet.models import DeformableDETR

from mpvit.models import AnyWidthDeformableDETR


def test_proposal_embedding_is_mmdets_at_256_and_fits_other_widths():
    proposals = torch.randn(2, 5, 4)
    model = AnyWidthDeformableDETR.__new__(AnyWidthDeformableDETR)
    torch.nn.Module.__init__(model)
    model.embed_dims = 256
    expected = DeformableDETR.get_proposal_pos_embed(proposals)
    assert torch.equal(model.get_proposal_pos_embed(proposals), expected)
    model.embed_dims = 96
    assert model.get_proposal_pos_embed(proposals).shape == (2, 5, 192)
