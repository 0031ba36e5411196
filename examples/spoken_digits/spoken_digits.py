"""Networks that hear which digit was spoken in one second of sound at 8 kHz: a log-mel front end, then convolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
RATE = 8000  # samples a second
SIDE = 16
WINDOW = SIDE * SIDE  # samples of a frame: 32 ms
HOP = WINDOW // 2
BINS = WINDOW // 2  # frequencies of a spectrum, from 0 to just below 4 kHz
LOWEST_HZ = 60.0
FLOOR = 1e-6  # of power, in every band: what silence counts as
MOST_SHIFT = RATE // 10
MOST_GAIN_DB = 6.0


def mel_filters(bands: int) -> Tensor:
    """Triangular filters, evenly spaced on the mel scale, as float64 ``[128, bands]``.

    The scale is O'Shaughnessy's, ``2595 log10(1 + f / 700)`` (*Speech Communication: Human and Machine*, 1987); every
    triangle is 1 at its centre and 0 at the centres of its neighbours.

    Args:
        bands: How many.
    """
    lowest, highest = (2595 * math.log10(1 + hertz / 700) for hertz in (LOWEST_HZ, RATE / 2))
    mels = torch.linspace(lowest, highest, bands + 2, dtype=torch.float64)
    centres = 700 * (10 ** (mels / 2595) - 1)
    frequencies = torch.arange(BINS, dtype=torch.float64)[:, None] * RATE / WINDOW
    rising = (frequencies - centres[:-2]) / (centres[1:-1] - centres[:-2])
    falling = (centres[2:] - frequencies) / (centres[2:] - centres[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


class LogMel(nn.Module):
    """The logarithm of the power in mel bands above a floor, of frames of 32 ms that overlap by half; silence is 0.

    It exports to plain matrix products: a Fourier transform of 256 samples is two of 16 with a turn of phases between
    (Cooley and Tukey, "An algorithm for the machine calculation of complex Fourier series", 1965). Sample ``16 a + b``
    and frequency ``k2 + 16 k1`` go ``Σ_b e^(-2πi b k1 / 16) · e^(-2πi b k2 / 256) · Σ_a x e^(-2πi a k2 / 16)``. The
    constants take 6 kB, where one matrix for the whole transform would take 262.

    Args:
        bands: Mel bands.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        numbers = torch.arange(SIDE, dtype=torch.float64)
        coarse = 2 * math.pi * torch.outer(numbers, numbers) / SIDE
        fine = 2 * math.pi * torch.outer(numbers, numbers) / WINDOW
        # Only frequencies below half the rate: k1 from 0 to 7.
        cos, sin = coarse.cos()[:, : SIDE // 2], coarse.sin()[:, : SIDE // 2]
        constants = {
            "window": torch.hann_window(WINDOW, dtype=torch.float64),
            "rows": torch.cat([coarse.cos(), -coarse.sin()]),
            "cos": fine.cos(),
            "sin": fine.sin(),
            "columns": torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)]),
            "filters": mel_filters(bands) / (WINDOW * FLOOR),
        }
        for name, value in constants.items():  # fixed: they are no weights, and are in no file of weights
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Sound ``[n, samples]`` in -1 … 1 to log power ``[n, 1, frames, bands]``, 0 or more."""
        return torch.log(self.power(x) @ self.filters + 1)[:, None]

    def power(self, x: Tensor) -> Tensor:
        """Sound ``[n, samples]`` to the power ``[n, frames, 128]`` of the frequencies 0, 31.25, 62.5 … Hz."""
        missing = -x.shape[1] % HOP
        halves = functional.pad(x, (missing // 2, missing - missing // 2)).reshape(x.shape[0], -1, HOP)
        frames = torch.cat([halves[:, :-1], halves[:, 1:]], dim=2)
        blocks = (frames * self.window).reshape(x.shape[0], -1, SIDE, SIDE)  # sample 16 a + b at [a, b]
        real, imaginary = (self.rows @ blocks).chunk(2, dim=2)  # [k2, b]
        turned = [real * self.cos + imaginary * self.sin, imaginary * self.cos - real * self.sin]
        real, imaginary = (torch.cat(turned, dim=3) @ self.columns).chunk(2, dim=3)  # [k2, k1]
        return (real.square() + imaginary.square()).transpose(2, 3).flatten(2)


def convolution(channels_in: int, channels: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution without bias and its BatchNorm; stride 2 halves time and bands."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, size, stride, size // 2, bias=False), nn.BatchNorm2d(channels)
    )


class Residual(nn.Module):
    """Two 3×3 convolutions with a shortcut (He et al., "Deep residual learning for image recognition", 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(channels_in, channels, stride=stride), nn.ReLU(), convolution(channels, channels)
        )
        same = channels_in == channels and stride == 1
        self.shortcut = nn.Identity() if same else convolution(channels_in, channels, size=1, stride=stride)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, frames, bands]`` to ``[n, channels, frames / stride, bands / stride]``."""
        return self.activation(self.body(x) + self.shortcut(x))


class Net(nn.Module):
    """The front end, a stem, one residual block a stage, averaging over time and bands, and a linear head.

    Args:
        bands: Mel bands.
        stem_stride: 2 halves time and bands at once, and then the first stage keeps its size.
        widths: Channels of each stage; the stem has the first's. A stage halves time and bands.
    """

    def __init__(self, *, bands: int, stem_stride: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.front = LogMel(bands)
        self.norm = nn.BatchNorm2d(1)  # brings log power, 0 … 15, to what convolutions like
        self.stem = nn.Sequential(convolution(1, widths[0], stride=stem_stride), nn.ReLU())
        channels = [widths[0], *widths]
        strides = [1 if stem_stride == 2 else 2, *[2] * (len(widths) - 1)]
        self.stages = nn.Sequential(
            *(Residual(channels[i], channels[i + 1], stride) for i, stride in enumerate(strides))
        )
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Sound ``[n, 8000]`` in -1 … 1 to logits ``[n, 10]``."""
        return self.head(self.stages(self.stem(self.norm(self.front(x)))).mean(dim=(2, 3)))


class Teacher(Net):
    """The large model: 0.31 million parameters as it is."""

    def __init__(self, bands: int = 32, widths: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__(bands=bands, stem_stride=1, widths=widths)


class Student(Net):
    """The small model: 38 thousand parameters as it is."""

    def __init__(self, bands: int = 32, widths: Sequence[int] = (16, 24, 40)) -> None:
        super().__init__(bands=bands, stem_stride=2, widths=widths)


def vary(inputs: Mapping[str, Tensor], labels: Tensor | None, generator: torch.Generator) -> dict[str, Tensor]:
    """What training hears of a clip: up to 0.1 s earlier or later, and up to 6 dB louder or quieter.

    Args:
        inputs: Sound ``[n, samples]`` by name.
        labels: Stay as they are.
        generator: Decides how.
    """
    return {name: _varied(sound, generator) for name, sound in inputs.items()}


def _varied(sound: Tensor, generator: torch.Generator) -> Tensor:
    count, length = sound.shape
    shifts = torch.randint(-MOST_SHIFT, MOST_SHIFT + 1, (count, 1), generator=generator)
    gains = 10 ** ((2 * torch.rand(count, 1, generator=generator) - 1) * MOST_GAIN_DB / 20)
    places = (torch.arange(length) - shifts).to(sound.device)
    moved = sound.gather(1, places.clamp(0, length - 1))
    inside = (places >= 0) & (places < length)
    return torch.where(inside, moved * gains.to(sound), 0.0)
