import { describe, expect, test } from 'vitest';
import { kernelName, parseKernel, specialise, uniformData } from '../../engine/kernel.ts';

const source = `struct Shape {
  rows: u32, // of x
  scale: f32,
  shift: i32,
}

const THREADS: u32 = 64u;   // @param  a power of two
const SLOPE: f32 = 0.5;     // @param
alias Word = vec4f;         // @param  storage
// @or f16, bf16  alias Word = vec2u;
fn unpack(word: Word) -> vec4f { return word; } // @param
// @or f16   fn unpack(word: Word) -> vec4f { return vec4f(unpack2x16float(word.x), unpack2x16float(word.y)); }
// @or bf16  fn unpack(word: Word) -> vec4f {
// @or bf16    return bitcast<vec4f>(word.xxyy << vec4u(16u, 0u, 16u, 0u)); } // widened
const FIXED: u32 = 3u;

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(THREADS) fn forward(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < shape.rows) { y[id.x] = unpack(x[id.x]) * SLOPE * shape.scale; }
}
@compute @workgroup_size(THREADS)
fn backward() {}
`;
const kernel = parseKernel('example', source);

describe('kernel files', () => {
  test('what a file declares', () => {
    expect(kernel.entryPoints).toEqual(['forward', 'backward']);
    expect(kernel.parameters).toEqual(['THREADS', 'SLOPE', 'Word', 'unpack']);
    const bf16 =
      'fn unpack(word: Word) -> vec4f { return bitcast<vec4f>(word.xxyy << vec4u(16u, 0u, 16u, 0u)); } // widened';
    expect([...kernel.alternatives.get('Word')!]).toEqual([
      ['f16', 'alias Word = vec2u;'],
      ['bf16', 'alias Word = vec2u;'],
    ]);
    expect([...kernel.alternatives.keys()]).toEqual(['Word', 'unpack']);
    expect([...kernel.alternatives.get('unpack')!.keys()]).toEqual(['f16', 'bf16']);
    expect(kernel.alternatives.get('unpack')!.get('bf16')).toBe(bf16);
    expect([...kernel.bindings]).toEqual([
      ['shape', { index: 0, space: 'uniform', type: 'Shape' }],
      ['x', { index: 1, space: 'read', type: 'array<Word>' }],
      ['y', { index: 2, space: 'read_write', type: 'array<vec4f>' }],
    ]);
    expect(kernel.structs.get('Shape')).toEqual([
      { name: 'rows', type: 'u32' },
      { name: 'scale', type: 'f32' },
      { name: 'shift', type: 'i32' },
    ]);
  });

  test.each([
    [
      'alias Word = f32;\n// @or f16  alias Word = vec2u;',
      "line 2: no @param declaration stands above the alternative 'f16'",
    ],
    [
      'alias Word = f32; // @param\n\n// @or f16  alias Word = vec2u;',
      "line 3: no @param declaration stands above the alternative 'f16'",
    ],
    ['alias Word = f32; // @param\n// @or f16  alias Words = vec2u;', "line 2: 'f16' does not declare Word"],
    [
      'alias A = f32; // @param\n// @or x  alias A = u32;\n// @or y  alias A = i32;\n// @or x  alias A = bool;',
      "line 4: A has an alternative 'x' already",
    ],
  ])('an alternative out of place: %s', (text, message) => {
    expect(() => parseKernel('example', text)).toThrow(new Error(`kernel example, ${message}`));
  });

  test.each([
    ['file:///repository/kernels/adaptive-rms-norm.wgsl', 'adaptive-rms-norm'],
    ['file:///repository/kernels/matmul.software.wgsl', 'matmul.software'],
    ['https://example.org/assets/rms-norm-Bx3_k-9Q.wgsl?v=1', 'rms-norm'],
    ['https://example.org/assets/adaptive-rms-norm-a1b2c3d4.wgsl', 'adaptive-rms-norm'],
  ])('the name of %s', (url, name) => {
    expect(kernelName(new URL(url))).toBe(name);
  });
});

describe('specialise', () => {
  test('replaces marked declarations and nothing else', () => {
    const made = specialise(kernel, {
      THREADS: 128,
      SLOPE: 2,
      Word: 'alias Word = vec2u;',
      unpack: 'fn unpack(word: Word) -> vec4f { return vec4f(); }',
    });
    const [before, after] = [source, made].map((text) => text.split('\n'));
    expect(after.length).toBe(before.length);
    const changed = after.filter((line, i) => line !== before[i]);
    expect(changed).toEqual([
      'const THREADS: u32 = 128u;',
      'const SLOPE: f32 = 2f;',
      'alias Word = vec2u;',
      'fn unpack(word: Word) -> vec4f { return vec4f(); }',
    ]);
    const named = specialise(kernel, { Word: 'f16', unpack: 'bf16' }).split('\n');
    expect(named.length).toBe(before.length);
    expect(named.filter((line, i) => line !== before[i])).toEqual([
      'alias Word = vec2u;',
      kernel.alternatives.get('unpack')!.get('bf16'),
    ]);
    expect(specialise(kernel, {})).toBe(source);
    expect(specialise(kernel, { enable: 'f16' })).toBe(`enable f16; ${source}`);
  });

  test('the op parameters become immediates where they fit, and entry points have the size of their subgroups', () => {
    const target = { immediateBytes: 16, subgroupSizeControl: true };
    const changed = (fields: string, sized = {}) => {
      const text = `struct Shape { ${fields} }
@group(0) @binding(0) var<uniform> shape: Shape;
@compute @workgroup_size(8) fn forward() { }`;
      return specialise(parseKernel('example', text), sized, target).split('\n');
    };
    expect(changed('a: u32, b: f32, c: i32, d: u32')[1]).toBe('var<immediate> shape: Shape;');
    expect(changed('a: u32, b: f32, c: i32, d: u32, e: u32')[1]).toBe(
      '@group(0) @binding(0) var<uniform> shape: Shape;',
    );
    const [first, , last] = changed('a: u32', { enable: 'f16', subgroupSize: 8 });
    expect(first).toBe('enable f16, subgroups, subgroup_size_control; struct Shape { a: u32 }');
    expect(last).toBe('@subgroup_size(8) @compute @workgroup_size(8) fn forward() { }');
  });

  test('what is no parameter, or no number', () => {
    expect(() => specialise(kernel, { FIXED: 4 })).toThrow(
      "kernel example: 'FIXED' is not a parameter; it has THREADS, SLOPE, Word, unpack",
    );
    expect(() => specialise(kernel, { Word: 4 })).toThrow(
      'kernel example: a number cannot replace: alias Word = vec4f;',
    );
    expect(() => specialise(kernel, { THREADS: 1.5 })).toThrow('kernel example: THREADS: u32 cannot hold 1.5');
    expect(() => specialise(kernel, { THREADS: -1 })).toThrow('kernel example: THREADS: u32 cannot hold -1');
    expect(() => specialise(kernel, { SLOPE: Number.NaN })).toThrow('kernel example: SLOPE: f32 cannot hold NaN');
    expect(() => specialise(kernel, { THREADS: 'alias Word = vec4f;' })).toThrow(
      "kernel example: 'alias Word = vec4f;' does not declare THREADS; it has no alternatives",
    );
    expect(() => specialise(kernel, { unpack: 'f8' })).toThrow(
      "kernel example: 'f8' does not declare unpack; its alternatives are f16, bf16",
    );
  });
});

describe('uniforms', () => {
  test('fields lie one after another, in the order of the struct, in a whole number of 16 bytes', () => {
    const { bytes: packed, ...place } = uniformData(kernel, { shift: -5, scale: 0.25, rows: 2 ** 32 - 1 });
    expect(place).toEqual({ name: 'shape', index: 0 });
    expect(packed.byteLength).toBe(16);
    const view = new DataView(packed);
    expect([view.getUint32(0, true), view.getFloat32(4, true), view.getInt32(8, true)]).toEqual([
      2 ** 32 - 1,
      0.25,
      -5,
    ]);
  });

  test.each<[string, Record<string, number>, string]>([
    ['a field too few', { rows: 1, scale: 1 }, 'kernel example: Shape.shift is missing'],
    ['a field too many', { rows: 1, scale: 1, shift: 0, width: 2 }, 'kernel example: Shape has no field width'],
    ['a fraction', { rows: 1.5, scale: 1, shift: 0 }, 'kernel example: Shape.rows: u32 cannot hold 1.5'],
    ['a negative number', { rows: -1, scale: 1, shift: 0 }, 'kernel example: Shape.rows: u32 cannot hold -1'],
    ['too large', { rows: 2 ** 32, scale: 1, shift: 0 }, 'kernel example: Shape.rows: u32 cannot hold 4294967296'],
    ['a fraction as i32', { rows: 1, scale: 1, shift: 0.5 }, 'kernel example: Shape.shift: i32 cannot hold 0.5'],
    [
      'too large for i32',
      { rows: 1, scale: 1, shift: 2 ** 31 },
      'kernel example: Shape.shift: i32 cannot hold 2147483648',
    ],
    ['not a number', { rows: 1, scale: Number.NaN, shift: 0 }, 'kernel example: Shape.scale: f32 cannot hold NaN'],
    ['too large for f32', { rows: 1, scale: 1e39, shift: 0 }, 'kernel example: Shape.scale: f32 cannot hold 1e+39'],
  ])('%s', (_, values, message) => {
    expect(() => uniformData(kernel, values)).toThrow(new Error(message));
  });

  test('a struct that is not there, or has fields that are no scalars', () => {
    const binding = '@group(0) @binding(0) var<uniform> shape: Shape;\n';
    expect(() => uniformData(parseKernel('example', binding), {})).toThrow('kernel example: no struct Shape');
    const other = parseKernel('example', `${binding}struct Shape {\n  size: vec2u,\n}\n`);
    expect(() => uniformData(other, { size: 1 })).toThrow('kernel example: Shape.size: vec2u cannot hold 1');
  });
});
