"""Lab and YCbCr of one colour at a time, in Python's floats, from the equations of CIE 15 and ITU-R BT.601."""

WHITE = (0.95047, 1.0, 1.08883)


def linear(value: float) -> float:
    return ((value + 0.055) / 1.055) ** 2.4 if value > 0.04045 else value / 12.92


def root(t: float) -> float:
    return t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116


def lab(red: float, green: float, blue: float) -> tuple[float, float, float]:
    r, g, b = linear(red), linear(green), linear(blue)
    x = 0.412453 * r + 0.357580 * g + 0.180423 * b
    y = 0.212671 * r + 0.715160 * g + 0.072169 * b
    z = 0.019334 * r + 0.119193 * g + 0.950227 * b
    fx, fy, fz = root(x / WHITE[0]), root(y / WHITE[1]), root(z / WHITE[2])
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def ycbcr(red: float, green: float, blue: float) -> tuple[float, float, float]:
    return (
        16 + 65.481 * red + 128.553 * green + 24.966 * blue,
        128 - 37.797 * red - 74.203 * green + 112 * blue,
        128 + 112 * red - 93.786 * green - 18.214 * blue,
    )
