"""Style mixing (StyleGAN, Karras et al. 2019, section 3.1), as a table of pictures.

Some layers come from one object, the others from another.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from dnnlib import UserError
from training.networks.generator import Generator
from training.outputs.figures import tile
from training.outputs.objects import Objects

MOST_PICTURES = 400  # they must fit in memory


def check_mixing(
    generator: Generator, rows: int, columns: int, layers: Sequence[int] | None
) -> list[int]:
    """The layers that come from the columns; None: the second half, from which colors come.

    Raises:
        UserError: where there are no such layers, or too many pictures.
    """
    count = generator.num_object_ws
    if rows * columns > MOST_PICTURES:
        raise UserError(
            f"--mix-with: {rows} times {columns} pictures are more than {MOST_PICTURES}; "
            "give fewer seeds"
        )
    chosen = range(count // 2, count) if layers is None else layers
    if beyond := [layer for layer in chosen if layer >= count]:
        raise UserError(f"--mix-layers {beyond[0]}: this network has layers 0 to {count - 1}")
    return list(chosen)


@torch.no_grad()
def mixing_table(
    rows: Objects,
    columns: Objects,
    layers: Sequence[int],
    intrinsics: Tensor | None = None,
    resolution: int | None = None,
) -> Image.Image:
    """A table of mixed styles.

    The first column shows the rows' objects, the first row those of the columns, and each cell the
    row's object with `layers` of the column's.

    All of a row are seen from the pose of its object. See `Objects.render` for the lens and size.
    """
    heads = columns.own_view(intrinsics, resolution).image.cpu()
    lines = [torch.cat([torch.ones_like(heads[:1]), heads])]
    for row in rows.split():
        ws = row.ws.expand(len(columns), -1, -1).clone()
        ws[:, layers] = columns.ws[:, layers]
        mixed = Objects.from_ws(row.generator, ws, row.pose.expand(len(columns), 2))
        images = (each.own_view(intrinsics, resolution).image.cpu() for each in (row, mixed))
        lines.append(torch.cat(list(images)))
    return tile(torch.cat(lines), columns=1 + len(columns))
