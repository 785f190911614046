/**
 * The two 16-bit float formats, as bit patterns: IEEE 754 binary16 (f16) and bfloat16 (the upper half of a float32).
 * Widening is exact; narrowing rounds to nearest, ties to even, and keeps infinities, NaN and the sign of zero.
 * Narrowing to f16 overflows to infinity from 65520 on, as in IEEE 754 (kernels clamp to 65504 instead).
 */

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The value of an f16 bit pattern. */
export function float16ToFloat32(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** The f16 bit pattern nearest to `value`, which is rounded to float32 first. */
export function float32ToFloat16(value: number): number {
  float[0] = value;
  const sign = (bits[0] >>> 16) & 0x8000;
  const magnitude = bits[0] & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 = half way from 65504 to 65536
  if (magnitude < 0x38800000) return sign | roundHalfEven(Math.abs(float[0]) * 16777216); // subnormal: units of 2^-24
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

/** The bfloat16 bit pattern nearest to `value`, which is rounded to float32 first. */
export function float32ToBfloat16(value: number): number {
  float[0] = value;
  return upperHalf(bits[0]);
}

function upperHalf(pattern: number): number {
  if ((pattern & 0x7fffffff) > 0x7f800000) return (pattern >>> 16) | 0x40; // a NaN must not round to infinity
  return (pattern + 0x7fff + ((pattern >>> 16) & 1)) >>> 16;
}

function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}

export function decodeFloat16(halves: Uint16Array): Float32Array<ArrayBuffer> {
  return new Float32Array(halves.length).map((_, i) => float16ToFloat32(halves[i]));
}

export function encodeFloat16(values: Float32Array): Uint16Array<ArrayBuffer> {
  return new Uint16Array(values.length).map((_, i) => float32ToFloat16(values[i]));
}

export function decodeBfloat16(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const out = new Float32Array(halves.length);
  const patterns = new Uint32Array(out.buffer);
  for (let i = 0; i < halves.length; i++) patterns[i] = halves[i] << 16;
  return out;
}

export function encodeBfloat16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const out = new Uint16Array(values.length);
  const patterns = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < out.length; i++) out[i] = upperHalf(patterns[i]);
  return out;
}
