import { type Device, openDevice } from '../../engine/index.ts';

/** The matrices of matmul.matrix.wgsl, as a device reports them. */
export const matricesOfF16 = [{ componentType: 'f16', resultComponentType: 'f32', M: 16, N: 16, K: 16 }] as const;

/** What the kernels for subgroup matrices ask of a device, whatever it is: for pipelines that are compiled, or emulated, only. */
export function pretendMatrices(device: Device): Device {
  const features = new Set([...device.features, 'shader-f16', 'subgroups', 'subgroup-size-control']);
  return Object.assign(device, { features, subgroupSizes: [32, 64] as const, subgroupMatrices: matricesOfF16 });
}

/** Replaced by plain WGSL, of a kernel file with subgroup matrices; a lane holds 8 sums of one row, and reads operands where they lie. */
const replacements: readonly (readonly [RegExp, string])[] = [
  [/^enable .*;$/m, 'var<private> lane: u32;'],
  [/ @subgroup_size\(32\)/, ''],
  [/, @builtin\(subgroup_id\) subgroup: u32\) \{/, ') { let subgroup = thread / 32u; lane = thread % 32u;'],
  [/^alias (Left|Right) = subgroup_matrix.*$/gm, 'alias $1 = vec2u;'],
  [/^alias Sum = subgroup_matrix.*$/m, 'alias Sum = array<f32, 8>;'],
  [/subgroupMatrixLoad<(Left, row|Right, col)_major>\(&tile, /g, 'vec2u('],
  [/subgroupMatrixStore<row_major>\(&tile, /g, 'storeSum('],
  [/subgroupMatrixMultiplyAccumulate\(/g, 'multiplyAccumulate('],
];

const functions = `
fn halves(word: vec2u) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
fn multiplyAccumulate(left: Left, right: Right, before: Sum) -> Sum {
  var sum = before;
  for (var i = 0u; i < 8u; i++) {
    for (var group = 0u; group < 4u; group++) {
      let rowOfA = halves(tile[left.x + lane / 2u * left.y + group]);
      sum[i] += dot(rowOfA, halves(tile[right.x + (lane % 2u * 8u + i) * right.y + group]));
    }
  }
  return sum;
}
fn storeSum(offset: u32, sum: Sum, stride: u32) {
  for (var i = 0u; i < 4u; i++) {
    tile[offset + lane / 2u * stride + lane % 2u * 4u + i] = bitcast<vec2u>(vec2f(sum[2u * i], sum[2u * i + 1u]));
  }
}`;

/** A device on any adapter that runs kernels with subgroup matrices: their builtin functions are replaced, the rest runs as it is. */
export async function deviceWithEmulatedMatrices(): Promise<Device> {
  const device = pretendMatrices(await openDevice());
  const create = device.gpu.createShaderModule.bind(device.gpu);
  device.gpu.createShaderModule = (descriptor) => {
    if (!descriptor.code.includes('subgroup_matrix')) return create(descriptor);
    const code = replacements.reduce((text, [from, to]) => text.replace(from, to), descriptor.code);
    return create({ ...descriptor, code: code + functions });
  };
  return device;
}
