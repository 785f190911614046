import { Packr } from 'msgpackr';
import { expect, test } from 'vitest';
import { type Message, NumberArray, packMessage, unpackMessage } from '../../model/policy/serving/messages.ts';
import { type ExpectedObservation, readObservation } from '../../model/policy/serving/observations.ts';

const bytes = (own: string) => new TextEncoder().encode(own);
const packed = (value: unknown) => new Packr({ useRecords: false }).pack(value);
const array = (dtype: unknown, shape: unknown, data: unknown, marker = '__ndarray__') =>
  new Map<unknown, unknown>([
    [bytes(marker), true],
    [bytes('data'), data],
    [bytes('dtype'), dtype],
    [bytes('shape'), shape],
  ]);

test('arrays, numbers, texts and maps come back as they were packed', () => {
  const message: Message = {
    actions: new NumberArray([2, 3], Float32Array.of(1, 2, 3, 4, 5, 6)),
    picture: new NumberArray([1, 1, 3], Uint8Array.of(1, 2, 255)),
    deep: { list: [1, 'two', null, true, 2.5], numbers: new NumberArray([0], new Float64Array()) },
  };
  expect(unpackMessage(packMessage(message))).toEqual(message);
});

test("numbers of every type of NumPy's are read, from any offset of the message", () => {
  const cases: [string, ArrayBufferView, number[]][] = [
    ['|b1', Uint8Array.of(0, 1), [0, 1]],
    ['|i1', Int8Array.of(-1, 1), [-1, 1]],
    ['<u2', Uint16Array.of(65535), [65535]],
    ['<i4', Int32Array.of(-(2 ** 31)), [-(2 ** 31)]],
    ['<i8', BigInt64Array.of(-(2n ** 40n)), [-(2 ** 40)]],
    ['<f2', Uint16Array.of(0x3e00, 0xc000), [1.5, -2]],
    ['<f8', Float64Array.of(0.1), [0.1]],
  ];
  for (const [dtype, { buffer }, numbers] of cases)
    for (const pad of ['', 'x']) {
      const message = unpackMessage(packed({ [pad]: array(dtype, [numbers.length], new Uint8Array(buffer)) }));
      const { data } = (message as Record<string, NumberArray>)[pad];
      expect(Array.from(data), dtype).toEqual(numbers);
    }
  expect(unpackMessage(packed(array('<f4', [], 1.5, '__npgeneric__')))).toBe(1.5);
});

test.each([
  ['no msgpack', bytes('\xc1'), /no msgpack/],
  ['a message cut short', packed({ state: 'long enough' }).subarray(0, 9), /no msgpack/],
  ['more elements than bytes', Uint8Array.of(0xdd, 0xff, 0xff, 0xff, 0xff), /no msgpack/],
  ['100,000 lists in one another', new Uint8Array(100_000).fill(0x91), /no msgpack|no text|fit together/],
  [
    'another size than the shape',
    packed({ a: array('<f4', [2], new Uint8Array(4)) }),
    /a: an array .* 4 bytes; expected 8/,
  ],
  ['a shape of 2^60', packed({ a: array('<f4', [2 ** 30, 2 ** 30], new Uint8Array(4)) }), /expected/],
  ['a negative size', packed({ a: array('<f4', [-1, -1], new Uint8Array(4)) }), /shape/],
  ['an object type', packed({ a: array('|O', [1], new Uint8Array(8)) }), /type "\|O"/],
  ['a big-endian type', packed({ a: array('>f4', [1], new Uint8Array(4)) }), /type ">f4"/],
  ['a type that objects have', packed({ a: array('toString', [1], new Uint8Array(4)) }), /type "toString"/],
  ['no bytes', packed({ a: array('<f4', [1], 'text') }), /without bytes/],
])('%s is refused in one line', (_, message, reason) => {
  expect(() => unpackMessage(message)).toThrow(reason);
});

const expected: ExpectedObservation = { cameras: ['front', 'observation.images.wrist'], state: 2 };
const picture = new NumberArray([2, 1, 3], Uint8Array.of(1, 2, 3, 4, 5, 6));
const right = { 'observation/front': picture, images: { wrist: null }, state: [1, 2], prompt: 'lift' };

test('names are found by their last part, nested or flat, and what has no use is named', () => {
  const { observation, unused, reset } = readObservation({ ...right, extra: { force: 1 }, reset: true }, expected);
  expect(observation.images).toEqual({
    front: { height: 2, width: 1, pixels: picture.data },
    'observation.images.wrist': null,
  });
  expect({ ...observation, images: {} }).toEqual({ images: {}, state: [1, 2], instruction: 'lift', robot: undefined });
  expect({ unused, reset }).toEqual({ unused: ['extra/force'], reset: true });
});

test('keys that are given are taken, and several make one state', () => {
  const message = {
    cam: picture,
    'w.x': picture,
    joints: new NumberArray([1], Float32Array.of(3)),
    grip: 4,
    say: 'go',
  };
  const keys = {
    cameras: { front: 'cam', 'observation.images.wrist': 'w/x' },
    ...{ state: ['joints', 'grip'], prompt: 'say' },
  };
  const { observation, unused } = readObservation(message, expected, keys);
  expect([observation.state, observation.instruction, unused]).toEqual([[3, 4], 'go', []]);
});

test('a picture with the channels first, and one of floats, is the same picture', () => {
  const planar = new NumberArray([3, 2, 1], Float32Array.of(0, 1, 0.5, 0, 1, 0));
  const { observation } = readObservation({ ...right, 'observation/front': planar }, expected);
  expect(Array.from(observation.images.front!.pixels)).toEqual([0, 127, 255, 255, 0, 0]);
});

test.each([
  [
    'a camera that is missing',
    { ...right, 'observation/front': undefined },
    /no picture of camera "front".*--key front=/,
  ],
  ['a camera twice', { ...right, front: picture }, /"observation\/front" and "front" are both/],
  ['a state of another robot', { ...right, state: [1, 2, 3] }, /3 numbers; this policy was trained with 2/],
  ['a state that is no number', { ...right, state: [1, Number.NaN] }, /NaN at 1/],
  ['no state', { ...right, state: undefined }, /no state/],
  ['a matrix for a state', { ...right, state: new NumberArray([1, 2], Float32Array.of(1, 2)) }, /one axis/],
  ['bytes for a prompt', { ...right, prompt: bytes('lift') }, /prompt is no text/],
  ['a grey picture', { ...right, 'observation/front': new NumberArray([2, 2], new Uint8Array(4)) }, /shape \[2, 2\]/],
  ['no pixels', { ...right, 'observation/front': new NumberArray([0, 2, 3], new Uint8Array(0)) }, /0 x 2 pixels/],
  [
    'floats of bytes',
    { ...right, 'observation/front': new NumberArray([1, 1, 3], Float32Array.of(0, 9, 1)) },
    /9 at number 1/,
  ],
  ['a list', [1, 2], /no map/],
])('%s is refused with the reason', (_, message, reason) => {
  const own = Array.isArray(message)
    ? message
    : Object.fromEntries(Object.entries(message).filter(([, own]) => own !== undefined));
  expect(() => readObservation(own as Message, expected)).toThrow(reason);
});
