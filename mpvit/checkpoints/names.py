"""Names of tensors in the official checkpoints, translated to ours. Pure functions of a name."""

import re
from collections.abc import Callable

# The official MPViT registers the position encodings of a path again in each of its layers, so
# files hold the same tensors several times; these are the copies.
_MPVIT_ALIAS = re.compile(
    r'mhca_stages\.\d+\.mhca_blks\.\d+\.MHCA_layers\.\d+\.(cpe|crpe|factoratt_crpe\.crpe)\.'
)
_MPVIT_CLASSIFIER = re.compile(r'cls_head\.')
_MPVIT_RULES: tuple[tuple[str, str], ...] = (
    (
        r'patch_embed_stages\.(\d+)\.patch_embeds\.(\d+)\.patch_conv\.dwconv\.',
        r'stages.\1.patch_embeds.\2.dwconv.',
    ),
    (
        r'patch_embed_stages\.(\d+)\.patch_embeds\.(\d+)\.patch_conv\.pwconv\.',
        r'stages.\1.patch_embeds.\2.pwconv.conv.',
    ),
    (
        r'patch_embed_stages\.(\d+)\.patch_embeds\.(\d+)\.patch_conv\.bn\.',
        r'stages.\1.patch_embeds.\2.pwconv.bn.',
    ),
    (r'mhca_stages\.(\d+)\.InvRes\.dwconv\.', r'stages.\1.local.dwconv.conv.'),
    (r'mhca_stages\.(\d+)\.InvRes\.norm\.', r'stages.\1.local.dwconv.bn.'),
    (r'mhca_stages\.(\d+)\.InvRes\.', r'stages.\1.local.'),
    (r'mhca_stages\.(\d+)\.aggregate\.', r'stages.\1.aggregate.'),
    (r'mhca_stages\.(\d+)\.mhca_blks\.(\d+)\.cpe\.', r'stages.\1.paths.\2.cpe.'),
    (
        r'mhca_stages\.(\d+)\.mhca_blks\.(\d+)\.crpe\.conv_list\.',
        r'stages.\1.paths.\2.crpe.convs.',
    ),
    (
        r'mhca_stages\.(\d+)\.mhca_blks\.(\d+)\.MHCA_layers\.(\d+)\.factoratt_crpe\.',
        r'stages.\1.paths.\2.layers.\3.attn.',
    ),
    (
        r'mhca_stages\.(\d+)\.mhca_blks\.(\d+)\.MHCA_layers\.(\d+)\.',
        r'stages.\1.paths.\2.layers.\3.',
    ),
    (r'stem\.', 'stem.'),
)


def mpvit_from_official(name: str) -> str | None:
    """Our name of a tensor of an official MPViT file, without any prefix.

    Args:
        name: Official name, such as ``mhca_stages.0.aggregate.conv.weight``.

    Returns:
        Our name; None for a copy of another tensor and for the ImageNet classifier, which the
        detector does not have.

    Raises:
        KeyError: The name does not belong to MPViT.
    """
    if _MPVIT_ALIAS.match(name) or _MPVIT_CLASSIFIER.match(name):
        return None
    for pattern, replacement in _MPVIT_RULES:
        renamed, count = re.subn('^' + pattern, replacement, name)
        if count:
            return renamed
    raise KeyError(f'{name!r} is not a tensor of an official MPViT checkpoint')


def rename(state_dict: dict[str, object], rule: Callable[[str], str | None]) -> dict[str, object]:
    """Apply a naming rule to every key, leaving out those it maps to None."""
    return {new: value for old, value in state_dict.items() if (new := rule(old)) is not None}
