"""Names of tensors in official MPViT checkpoints, translated to ours and back.

Pure functions of names, with what the other maps of names share.
"""

import re
from collections.abc import Callable, Iterable, Mapping

#: Rules in the order in which they are tried, each what a name starts with and its replacement.
Rules = list[tuple[re.Pattern[str], str]]

# Official name and ours; '#' stands for a number, the same on both sides. The first line that
# fits counts, in both directions.
_MPVIT: tuple[tuple[str, str], ...] = (
    (
        'patch_embed_stages.#.patch_embeds.#.patch_conv.dwconv.',
        'stages.#.patch_embeds.#.dwconv.',
    ),
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
    (
        'mhca_stages.#.mhca_blks.#.MHCA_layers.#.factoratt_crpe.',
        'stages.#.paths.#.layers.#.attn.',
    ),
    ('mhca_stages.#.mhca_blks.#.MHCA_layers.#.', 'stages.#.paths.#.layers.#.'),
    ('stem.', 'stem.'),
)
# The official MPViT registers the position encodings of a path again in each of its layers, so
# files hold the same tensors several times; these are the copies.
_MPVIT_COPY = re.compile(
    r'mhca_stages\.\d+\.mhca_blks\.\d+\.MHCA_layers\.\d+\.(cpe|crpe|factoratt_crpe\.crpe)\.'
)
_MPVIT_CLASSIFIER = re.compile(r'cls_head\.')
_LAYER = re.compile(r'stages\.(\d+)\.paths\.(\d+)\.layers\.(\d+)\.')
_SHARED = re.compile(r'(mhca_stages\.(\d+)\.mhca_blks\.(\d+)\.)((cpe|crpe)\..*)')


def two_way(table: Iterable[tuple[str, str]]) -> tuple[Rules, Rules]:
    """Rules from the first to the second column of a table, and from the second to the first.

    Args:
        table: Pairs of beginnings of names, where '#' stands for a number.
    """

    def rule(old: str, new: str) -> tuple[re.Pattern[str], str]:
        groups = iter(range(1, new.count('#') + 1))
        return (
            re.compile(re.escape(old).replace(r'\#', r'(\d+)')),
            re.sub('#', lambda _: rf'\g<{next(groups)}>', new),
        )

    table = list(table)
    return [rule(a, b) for a, b in table], [rule(b, a) for a, b in table]


def apply(rules: Rules, name: str, what: str) -> str:
    """Rename by the first rule that fits.

    Args:
        rules: What to try, in order.
        name: Name of a tensor.
        what: Kind of file, for the message.

    Raises:
        KeyError: None fits.
    """
    for pattern, replacement in rules:
        match = pattern.match(name)
        if match:
            return match.expand(replacement) + name[match.end() :]
    raise KeyError(f'{name!r} is not a tensor of {what}')


_FROM_OFFICIAL, _TO_OFFICIAL = two_way(_MPVIT)


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
    if _MPVIT_COPY.match(name) or _MPVIT_CLASSIFIER.match(name):
        return None
    return apply(_FROM_OFFICIAL, name, 'an official MPViT checkpoint')


def mpvit_to_official(names: Iterable[str]) -> dict[str, list[str]]:
    """Official names of all tensors of our MPViT.

    Args:
        names: All names of the backbone; they tell how many layers repeat a position encoding.

    Returns:
        Our name to official ones: the first, then its copies.

    Raises:
        KeyError: A name does not belong to our MPViT.
    """
    names = list(names)
    layers: dict[tuple[str, str], set[int]] = {}
    for name in names:
        if match := _LAYER.match(name):
            layers.setdefault((match[1], match[2]), set()).add(int(match[3]))
    result = {}
    for name in names:
        first = apply(_TO_OFFICIAL, name, 'our MPViT')
        result[name] = [first]
        if match := _SHARED.fullmatch(first):
            inner = ['', 'factoratt_crpe.'] if match[5] == 'crpe' else ['']
            result[name] += [
                f'{match[1]}MHCA_layers.{layer}.{place}{match[4]}'
                for layer in sorted(layers.get((match[2], match[3]), ()))
                for place in inner
            ]
    return result


def rename(
    state_dict: Mapping[str, object], rule: Callable[[str], str | None]
) -> dict[str, object]:
    """Apply a naming rule to every key, leaving out those it maps to None."""
    return {new: value for old, value in state_dict.items() if (new := rule(old)) is not None}
