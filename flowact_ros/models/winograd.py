# SPDX-License-Identifier: Apache-2.0
"""3 x 3 convolutions with a quarter of the multiplications (Winograd, F(4 x 4, 3 x 3)) or four ninths (2 x 2 instead),
for processors whose multiplications are what a decoder waits for.

Y = A^T [(G g G^T) * (B^T d B)] A over tiles d of 6 x 6 or 4 x 4 that overlap by two (Lavin and Gray 2016, arXiv
1509.09308, section 4). The two transforms are products with constant matrices, the middle is 36 or 16 products of
matrices: all of it runs at the speed of the processor's matrix library. It pays for many channels, where the middle is
most of the work. With very many, on grids of a few tiles, reading the weights is: then 16 matrices are better than 36.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.pair import Pair
from flowact_ros.models.substitution import substitute

LEAST_CHANNELS = 64  # below, the transforms cost more than they save
SHARED_CHANNELS = 192  # from here on two threads share the work, and tiles are small

# rows and columns of results a tile -> B^T, G, A^T
_TRANSFORMS = {
    2: (  # Lavin and Gray, section 4.1: points 0, 1, -1 and infinity
        ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        ((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: (  # section 4.3: points 0, 1, -1, 2, -2 and infinity
        (
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        (
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
}


class WinogradConv2d(nn.Module):
    """`conv`, 3 x 3 with a padding of one, for inference: `[N, C, H, W]`, channels last, to the same size.

    Called with a padding of zero, to two rows and columns less. Results differ by rounding, about 1e-5 of their size in
    float32. tile: rows and columns of results a tile, 2 or 4; pair: two threads for the products where no gradients are
    wanted; the result is the same. Raises ValueError for other convolutions.
    """

    kernel: Tensor
    bias: Tensor
    before: Tensor
    after: Tensor

    def __init__(self, conv: nn.Conv2d, tile: int = 4, pair: Pair | None = None) -> None:
        super().__init__()
        self._tile, self._pair = tile, pair
        form = (conv.kernel_size, conv.padding, conv.stride, conv.dilation, conv.groups)
        if form != ((3, 3), (1, 1), (1, 1), (1, 1), 1) or conv.bias is None:
            raise ValueError(f"{conv} cannot be done by tiles: 3 x 3, padding 1 and a bias are needed")
        weight = conv.weight.detach().double()
        b, g, a = (torch.tensor(m, dtype=torch.float64, device=weight.device) for m in _TRANSFORMS[tile])
        kernel = torch.einsum("ij,ocjk,lk->ilco", g, weight, g).flatten(0, 1)  # [36 or 16, C in, C out]
        self.register_buffer("kernel", kernel.to(conv.weight.dtype).contiguous(), persistent=False)
        self.register_buffer("bias", conv.bias.detach(), persistent=False)
        # the transform of rows and that of columns as one matrix
        self.register_buffer("before", torch.kron(b, b).to(conv.weight.dtype), persistent=False)
        self.register_buffer("after", torch.kron(a, a).to(conv.weight.dtype), persistent=False)

    def forward(self, x: Tensor, padding: int = 1) -> Tensor:
        n, channels, height, width = x.shape
        tile, size = self._tile, self._tile + 2
        rows, columns = (-(-(side - 2 + 2 * padding) // tile) for side in (height, width))
        right, bottom = (tile * tiles + 2 - side - padding for tiles, side in ((columns, width), (rows, height)))
        height, width = height - 2 + 2 * padding, width - 2 + 2 * padding
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, right, padding, bottom))
        image, row, column, channel = padded.stride()
        tiles = padded.as_strided(
            (size, size, n, rows, columns, channels), (row, column, image, tile * row, tile * column, channel)
        )
        moved = torch.mm(self.before, tiles.reshape(size**2, -1)).view(size**2, -1, channels)
        product = self._multiply(moved)
        y = torch.mm(self.after, product.flatten(1)).view(tile, tile, n, rows, columns, -1)
        y = y.permute(2, 3, 0, 4, 1, 5).reshape(n, tile * rows, tile * columns, -1)
        return y[:, :height, :width].add_(self.bias).permute(0, 3, 1, 2)

    def _multiply(self, tiles: Tensor) -> Tensor:
        """The products: tiles `[36 or 16, n, channels]` -> `[36 or 16, n, channels out]`."""
        if self._pair is None or tiles.requires_grad:
            return torch.bmm(tiles, self.kernel)
        product = tiles.new_empty(len(tiles), tiles.shape[1], self.kernel.shape[-1])
        half = len(tiles) // 2
        halves = (slice(0, half), slice(half, None))
        self._pair(*(lambda h=h: torch.bmm(tiles[h], self.kernel[h], out=product[h]) for h in halves))
        return product


def use_winograd(module: nn.Module, pair: Pair | None = None) -> int:
    """Puts it in place of the 3 x 3 convolutions of `module` that have channels enough. Returns how many.

    pair: two threads for the large ones, whose matrices are a matter of megabytes.
    """

    def better(name: str, layer: nn.Module) -> nn.Module:
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            channels = min(layer.in_channels, layer.out_channels)
            if channels >= LEAST_CHANNELS:
                large = channels >= SHARED_CHANNELS
                return WinogradConv2d(layer, 2 if large else 4, pair if large else None)
        return layer

    return substitute(module, better)
