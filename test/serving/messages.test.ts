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
  ['more elements than bytes', Uint8Array.of(0xdd, 0xff, 0xff, 0xff, 0xff), /more than 16384 values/],
  ['10,000 lists in one another', new Uint8Array(10_000).fill(0x91), /no msgpack|no text|fit together/],
  ['values after the message', new Uint8Array(10_000_000), /no msgpack/],
  [
    'another size than the shape',
    packed({ a: array('<f4', [2], new Uint8Array(4)) }),
    /a: an array .* 4 bytes; expected 8/,
  ],
  ['a shape of 2^60', packed({ a: array('<f4', [2 ** 30, 2 ** 30], new Uint8Array(4)) }), /expected/],
  [
    'a negative size',
    packed({ a: array('<f4', [-1, -1], new Uint8Array(4)) }),
    /shape \[-1,-1\]; expected whole numbers from 0/,
  ],
  ['100 axes', packed({ a: array('<f4', Array(100).fill(1), new Uint8Array(4)) }), /100 axes; there are at most 64/],
  ['an object type', packed({ a: array('|O', [1], new Uint8Array(8)) }), /type "\|O"/],
  ['a big-endian type', packed({ a: array('>f4', [1], new Uint8Array(4)) }), /type ">f4"/],
  ['a type that objects have', packed({ a: array('toString', [1], new Uint8Array(4)) }), /type "toString"/],
  ['no bytes', packed({ a: array('<f4', [1], 'text') }), /without bytes/],
])('%s is refused in one line', (_, message, reason) => {
  expect(() => unpackMessage(message)).toThrow(reason);
});

test('messages of millions of values are refused before anything is made of them', () => {
  const many = (kind: number, filling: number) => {
    const message = new Uint8Array(5 + 10_000_000).fill(filling);
    message[0] = kind;
    new DataView(message.buffer).setUint32(1, kind === 0xdf ? 5_000_000 : 10_000_000);
    return message;
  };
  const start = performance.now();
  for (const message of [many(0xdd, 0xc0), many(0xdd, 0x80), many(0xdf, 1), many(0xdd, 0x91)])
    expect(() => unpackMessage(message)).toThrow('more than 16384 values');
  // Making values of them takes from seconds to minutes.
  expect(performance.now() - start).toBeLessThan(500);
});

test('tokens of every kind are counted as what they are', () => {
  const each = [
    null,
    true,
    7,
    200,
    40_000,
    3e9,
    -7,
    -200,
    -40_000,
    -3e9,
    1.5,
    'x',
    'x'.repeat(100),
    'x'.repeat(70_000),
  ];
  const long = [new Uint8Array(3), new Uint8Array(300), new Uint8Array(70_000), Array(20).fill(1), { a: { b: [] } }];
  const message = Array(800)
    .fill([...each, ...long].slice(0, 12))
    .concat(each, long);
  expect(unpackMessage(packed([...message, ...Array(4000).fill(-1)]))).toHaveLength(800 + 19 + 4000);
  expect(() => unpackMessage(packed([...message, ...Array(8000).fill(-1)]))).toThrow('more than 16384 values');
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

test('an episode begins by any true of Python or NumPy, and a prompt may be None', () => {
  for (const [own, reset] of [
    ...[true, 1, new NumberArray([], Uint8Array.of(1)), new NumberArray([1], Float64Array.of(1))].map((own) => [
      own,
      true,
    ]),
    ...[false, 0, null, new NumberArray([], Uint8Array.of(0))].map((own) => [own, false]),
  ] as [Message, boolean][])
    expect(readObservation({ ...right, reset: own }, expected).reset).toBe(reset);
  expect(readObservation({ ...right, prompt: null }, expected).observation.instruction).toBe(null);
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
  [
    'an array of millions for a state',
    { ...right, state: new NumberArray([4e6], new Float32Array(4e6)) },
    /4000000 numbers; at most 4096/,
  ],
  ['a matrix for a state', { ...right, state: new NumberArray([1, 2], Float32Array.of(1, 2)) }, /one axis/],
  [
    'no prompt',
    { ...right, prompt: undefined },
    /no prompt, which is None where there is no instruction: .*--key prompt=/,
  ],
  ['a prompt that is no UTF-8', { ...right, prompt: new TextDecoder().decode(Uint8Array.of(255)) }, /no UTF-8/],
  ['a reset that is no truth', { ...right, reset: 'no' }, /reset is "no"; send True or False/],
  [
    'a missing camera among a thousand keys',
    Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`k${i}`, 0])),
    /"k19" and 980 more; insula/,
  ],
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
