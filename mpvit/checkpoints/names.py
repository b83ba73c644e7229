"""Names of tensors in official files and in ours, as one table that is read in both directions.

A row renames what a name begins with; what follows stays, and is checked when a model loads it.
The official implementations register shared modules several times, so their files hold the same
tensors under several names: those copies are a second table.
"""

import re
from collections.abc import Iterable

Row = tuple[str, str]

# Official name and ours; '#' stands for a number, the same on both sides. The first row that fits
# counts, in both directions. '%' counts the stages of CoaT, from 1 there and from 0 here.
_MPVIT: tuple[Row, ...] = (
    ('patch_embed_stages.#.patch_embeds.#.patch_conv.dwconv.', 'stages.#.patch_embeds.#.dwconv.'),
    (
        'patch_embed_stages.#.patch_embeds.#.patch_conv.pwconv.',
        'stages.#.patch_embeds.#.pwconv.conv.',
    ),
    ('patch_embed_stages.#.patch_embeds.#.patch_conv.bn.', 'stages.#.patch_embeds.#.pwconv.bn.'),
    ('mhca_stages.#.InvRes.dwconv.', 'stages.#.local.dwconv.conv.'),
    ('mhca_stages.#.InvRes.norm.', 'stages.#.local.dwconv.bn.'),
    ('mhca_stages.#.InvRes.', 'stages.#.local.'),
    ('mhca_stages.#.aggregate.', 'stages.#.aggregate.'),
    ('mhca_stages.#.mhca_blks.#.cpe.', 'stages.#.paths.#.cpe.'),
    ('mhca_stages.#.mhca_blks.#.crpe.conv_list.', 'stages.#.paths.#.crpe.convs.'),
    ('mhca_stages.#.mhca_blks.#.MHCA_layers.#.factoratt_crpe.', 'stages.#.paths.#.layers.#.attn.'),
    ('mhca_stages.#.mhca_blks.#.MHCA_layers.#.', 'stages.#.paths.#.layers.#.'),
    ('stem.', 'stem.'),
)
_COAT: tuple[Row, ...] = (  # the ImageNet files of timm too
    ('cls_token%', 'stages.%.cls_token'),
    ('patch_embed%.', 'stages.%.patch_embed.'),
    ('cpe%.', 'stages.%.cpe.'),
    ('crpe%.', 'stages.%.crpe.'),
    ('serial_blocks%.#.', 'stages.%.layers.#.'),
    ('parallel_blocks.#.', 'parallel_layers.#.'),
)
_RESNET: tuple[Row, ...] = (
    ('conv1.', 'conv1.'),  # torchvision's names are also mmdet's
    ('bn1.', 'bn1.'),
    ('layer#.', 'layer#.'),
)
_IMAGENET_HEAD: Row = ('cls_head.cls.', 'head.fc.')  # of MPViT
_HEADS: tuple[Row, ...] = (
    ('class_embed.#.', 'bbox_head.cls_branches.#.'),
    ('bbox_embed.#.layers.0.', 'bbox_head.reg_branches.#.0.'),
    ('bbox_embed.#.layers.1.', 'bbox_head.reg_branches.#.2.'),
    ('bbox_embed.#.layers.2.', 'bbox_head.reg_branches.#.4.'),
)
_DETECTOR: tuple[Row, ...] = (
    ('input_proj.3.0.', 'neck.extra_convs.0.conv.'),
    ('input_proj.3.1.', 'neck.extra_convs.0.gn.'),
    ('input_proj.#.0.', 'neck.convs.#.conv.'),
    ('input_proj.#.1.', 'neck.convs.#.gn.'),
    ('transformer.level_embed', 'level_embed'),
    ('transformer.encoder.layers.#.norm1.', 'encoder.layers.#.norms.0.'),
    ('transformer.encoder.layers.#.norm2.', 'encoder.layers.#.norms.1.'),
    ('transformer.encoder.layers.#.linear1.', 'encoder.layers.#.ffn.layers.0.0.'),
    ('transformer.encoder.layers.#.linear2.', 'encoder.layers.#.ffn.layers.1.'),
    ('transformer.encoder.layers.#.self_attn.', 'encoder.layers.#.self_attn.'),
    # numbered by when they were added there, by when they are applied here
    ('transformer.decoder.layers.#.norm2.', 'decoder.layers.#.norms.0.'),
    ('transformer.decoder.layers.#.norm1.', 'decoder.layers.#.norms.1.'),
    ('transformer.decoder.layers.#.norm3.', 'decoder.layers.#.norms.2.'),
    ('transformer.decoder.layers.#.linear1.', 'decoder.layers.#.ffn.layers.0.0.'),
    ('transformer.decoder.layers.#.linear2.', 'decoder.layers.#.ffn.layers.1.'),
    ('transformer.decoder.layers.#.self_attn.', 'decoder.layers.#.self_attn.attn.'),
    ('transformer.decoder.layers.#.cross_attn.', 'decoder.layers.#.cross_attn.'),
    ('query_embed.', 'query_embedding.'),
    ('transformer.reference_points.', 'reference_points_fc.'),
    ('transformer.enc_output.', 'memory_trans_fc.'),
    ('transformer.enc_output_norm.', 'memory_trans_norm.'),
    ('transformer.pos_trans.', 'pos_trans_fc.'),
    ('transformer.pos_trans_norm.', 'pos_trans_norm.'),
    *_HEADS,
)
# Hugging Face's name and the official one. Files have the names of transformers 4, whichever
# version writes them.
_HUGGING_FACE: tuple[Row, ...] = (
    ('model.backbone.conv_encoder.model.conv1.', 'backbone.0.body.conv1.'),
    ('model.backbone.conv_encoder.model.bn1.', 'backbone.0.body.bn1.'),
    ('model.backbone.conv_encoder.model.layer#.', 'backbone.0.body.layer#.'),
    ('model.input_proj.', 'input_proj.'),
    ('model.level_embed', 'transformer.level_embed'),
    ('model.encoder.layers.#.self_attn.', 'transformer.encoder.layers.#.self_attn.'),
    ('model.encoder.layers.#.self_attn_layer_norm.', 'transformer.encoder.layers.#.norm1.'),
    ('model.encoder.layers.#.final_layer_norm.', 'transformer.encoder.layers.#.norm2.'),
    ('model.encoder.layers.#.fc#.', 'transformer.encoder.layers.#.linear#.'),
    ('model.decoder.layers.#.self_attn.', 'transformer.decoder.layers.#.self_attn.'),
    ('model.decoder.layers.#.self_attn_layer_norm.', 'transformer.decoder.layers.#.norm2.'),
    ('model.decoder.layers.#.encoder_attn.', 'transformer.decoder.layers.#.cross_attn.'),
    ('model.decoder.layers.#.encoder_attn_layer_norm.', 'transformer.decoder.layers.#.norm1.'),
    ('model.decoder.layers.#.final_layer_norm.', 'transformer.decoder.layers.#.norm3.'),
    ('model.decoder.layers.#.fc#.', 'transformer.decoder.layers.#.linear#.'),
    ('model.decoder.class_embed.', 'transformer.decoder.class_embed.'),
    ('model.decoder.bbox_embed.', 'transformer.decoder.bbox_embed.'),
    ('model.query_position_embeddings.', 'query_embed.'),
    ('model.reference_points.', 'transformer.reference_points.'),
    ('model.enc_output.', 'transformer.enc_output.'),
    ('model.enc_output_norm.', 'transformer.enc_output_norm.'),
    ('model.pos_trans.', 'transformer.pos_trans.'),
    ('model.pos_trans_norm.', 'transformer.pos_trans_norm.'),
    ('class_embed.', 'class_embed.'),
    ('bbox_embed.', 'bbox_embed.'),
)
# What transformers 5 names otherwise in a model, and in files of whoever saves its state dict.
_NEWER_NAMES = (
    (re.compile(r'^model\.backbone\.model\.'), 'model.backbone.conv_encoder.model.'),
    (re.compile(r'(layers\.\d+\.)mlp\.(fc\d\.)'), r'\1\2'),
    (re.compile(r'self_attn\.o_proj\.'), 'self_attn.out_proj.'),
)
# '*' stands for the number of every layer that there is: all of them repeat the tensor.
_BACKBONE_COPIES: tuple[Row, ...] = (
    ('mhca_stages.#.mhca_blks.#.MHCA_layers.*.cpe.', 'stages.#.paths.#.cpe.'),
    (
        'mhca_stages.#.mhca_blks.#.MHCA_layers.*.crpe.conv_list.',
        'stages.#.paths.#.crpe.convs.',
    ),
    (
        'mhca_stages.#.mhca_blks.#.MHCA_layers.*.factoratt_crpe.crpe.conv_list.',
        'stages.#.paths.#.crpe.convs.',
    ),
    ('serial_blocks%.*.cpe.', 'stages.%.cpe.'),
    ('serial_blocks%.*.factoratt_crpe.crpe.', 'stages.%.crpe.'),
    ('parallel_blocks.*.factoratt_crpe2.crpe.', 'stages.1.crpe.'),
    ('parallel_blocks.*.factoratt_crpe3.crpe.', 'stages.2.crpe.'),
    ('parallel_blocks.*.factoratt_crpe4.crpe.', 'stages.3.crpe.'),
    ('parallel_blocks.#.mlp3.', 'parallel_layers.#.mlp2.'),
    ('parallel_blocks.#.mlp4.', 'parallel_layers.#.mlp2.'),
)
# With box refinement the official decoder holds the box layers too, and the class layers when
# there are two stages.
_DECODER = 'transformer.decoder.'
#: Names that only a file of a detector with box refinement has begin with this.
REFINED = f'{_DECODER}bbox_embed.'

_LEFT_OUT = re.compile(
    r'backbone\.0\.\w+\.cls_head\.|(backbone\.0\.\w+\.)?(fc|head|aggregate|norm[1-4])\.'
)
_STEP_COUNTER = re.compile(r'(backbone\.)?(bn1|layer\d)\..*num_batches_tracked')


def _prefixed(rows: Iterable[Row], official: str, ours: str) -> list[Row]:
    return [(official + a, ours + b) for a, b in rows]


def _by_stage(rows: Iterable[Row]) -> list[Row]:
    """Rows with '%' once for each stage of CoaT."""
    return [
        (a.replace('%', str(stage + 1)), b.replace('%', str(stage)))
        for a, b in rows
        for stage in (range(4) if '%' in a else [0])
    ]


def _rule(old: str, new: str) -> tuple[re.Pattern[str], str]:
    """A row in one direction: a beginning of names, whole ones if no dot ends it, and the new."""
    groups = iter(range(1, new.count('#') + 1))
    pattern = re.escape(old).replace(r'\#', r'(\d+)').replace(r'\*', r'\d+')
    return (
        re.compile(pattern if old.endswith('.') else pattern + '$'),
        re.sub('#', lambda _: rf'\g<{next(groups)}>', new),
    )


_BACKBONE, _COPIES = _by_stage((*_MPVIT, *_COAT)), _by_stage(_BACKBONE_COPIES)
_IN_DETECTOR = 'backbone.0.backbone.', 'backbone.'
_ROWS = [
    *_BACKBONE,
    *_RESNET,
    _IMAGENET_HEAD,
    *_prefixed(_BACKBONE, *_IN_DETECTOR),
    *_prefixed(_RESNET, 'backbone.0.body.', 'backbone.'),
    *_DETECTOR,
]
_COPIES += [*_prefixed(_COPIES, *_IN_DETECTOR), *_prefixed(_HEADS, _DECODER, '')]
_FROM_OFFICIAL = [_rule(a, b) for a, b in (*_COPIES, *_ROWS)]
_TO_OFFICIAL = [_rule(b, a) for a, b in _ROWS]
_TO_COPIES = [_rule(b, a) for a, b in _COPIES]
_FROM_HUGGING_FACE = [_rule(a, b) for a, b in _HUGGING_FACE]
_TO_HUGGING_FACE = [_rule(b, a) for a, b in _HUGGING_FACE]


def our_name(name: str, hugging_face: bool = False) -> str | None:
    """Our name of a tensor of an official file: of a detector, a backbone, or torchvision's ResNet.

    Args:
        name: Official name, such as ``transformer.encoder.layers.0.norm1.weight``.
        hugging_face: It is a name of Hugging Face's, of transformers 4 or 5.

    Returns:
        Our name, the same for all copies of a tensor; None for the ImageNet classifier of CoaT and
        ResNet and its norms, which no model of ours has.

    Raises:
        KeyError: The name is in no known official file.
    """
    if hugging_face:
        plain = name
        for pattern, older in _NEWER_NAMES:
            plain = pattern.sub(older, plain)
        name = _renamed(_FROM_HUGGING_FACE, plain)[0]
    return None if _LEFT_OUT.match(name) else _renamed(_FROM_OFFICIAL, name)[0]


def hugging_face_name(official: str) -> str:
    """Hugging Face's name, as transformers 4 and 5 read it, of a tensor of an official detector.

    Raises:
        KeyError: There is none; the backbone can only be a ResNet.
    """
    return _renamed(_TO_HUGGING_FACE, official)[0]


def official_names(names: Iterable[str], refine: bool = False) -> dict[str, list[str]]:
    """Official names of all tensors of one of our models.

    Args:
        names: All names of the model; they tell how many layers repeat a tensor.
        refine: The model is a detector that refines boxes, which its names alone do not tell.

    Returns:
        Our name to official ones: the first, then its copies. An empty list for batch norm's
        step counter in a ResNet, which the official one does not have.

    Raises:
        KeyError: A name does not belong to our models.
    """
    names = list(names)
    result = {name: _renamed(_TO_OFFICIAL, name)[:1] for name in names}
    layers: dict[str, dict[str, None]] = {}  # beginning of a name to the numbers that follow it
    for (first,) in result.values():
        for match in re.finditer(r'\.(\d+)\.', first):
            layers.setdefault(first[: match.start(1)], {})[match[1]] = None
    two_stage = 'memory_trans_fc.weight' in names
    absent = tuple(
        f'{_DECODER}{copied}'
        for copied, exists in (('class_embed.', two_stage), ('bbox_embed.', refine))
        if not exists
    )
    for name, official in result.items():
        for copy in _renamed(_TO_COPIES, name, optional=True):
            if not copy.startswith(absent):
                start, star, end = copy.partition('*')
                numbers = layers.get(start, ()) if star else ['']
                official += [f'{start}{number}{end}' for number in numbers]
        if _STEP_COUNTER.fullmatch(name):
            official.clear()
    return result


def _renamed(
    rules: Iterable[tuple[re.Pattern[str], str]], name: str, optional: bool = False
) -> list[str]:
    """A name by every rule that fits, in their order."""
    found = [
        match.expand(replacement) + name[match.end() :]
        for pattern, replacement in rules
        if (match := pattern.match(name))
    ]
    if not found and not optional:
        raise KeyError(f'{name!r} is not the name of a known tensor')
    return found
