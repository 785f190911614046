/** Observations as robots send them: which key of a message is which camera, the state and the instruction of a policy. */
import { InputError, quote } from '../../../engine/files/errors.ts';
import type { Image } from '../../data/dataset.ts';
import type { RawObservation } from '../encoding.ts';
import { type Message, NumberArray } from './messages.ts';

/** The keys of a message by their use; what is not given is found by its name. */
export interface ObservationKeys {
  readonly cameras?: Readonly<Record<string, string>>;
  /** The parts of the state, in order. */
  readonly state?: readonly string[];
  readonly prompt?: string;
}

/** The numbers and pictures that a policy takes. */
export interface ExpectedObservation {
  readonly cameras: readonly string[];
  /** The dimensions of the robot's state; null for a policy that reads none. */
  readonly state: number | null;
  /** The robot's name, for a policy of several. */
  readonly robot?: string;
}

/** What a client sent, and the keys in it that have no use. */
export interface ReadObservation {
  readonly observation: RawObservation;
  /** The episode begins anew, so that a policy with a history forgets. */
  readonly reset: boolean;
  readonly unused: readonly string[];
}

/** More numbers than the state of any robot has. */
const MOST_NUMBERS = 4096;

const PREFIX = /^(observation|obs|images)\//;

/** `observation.images.top`, `images/top` and `top` are one name. */
function plainName(key: string): string {
  const path = plainPath(key);
  return PREFIX.test(path) ? plainName(path.replace(PREFIX, '')) : path;
}

/** The leaves of nested maps by their paths, joined by '/'. */
function leaves(message: Message, path = ''): [string, Message][] {
  const isMap = typeof message === 'object' && message !== null && message.constructor === Object;
  if (!isMap) return [[path, message]];
  return Object.entries(message).flatMap(([key, own]) => leaves(own as Message, path ? `${path}/${key}` : key));
}

/**
 * Reads openpi's observations: nested or flat maps of pictures [height, width, 3] or [3, height, width], bytes or floats from 0 to 1; a state
 * in the robot's units; and `prompt` or `task`. A camera or prompt that is None is not there. `reset: true` begins an episode.
 *
 * @throws InputError if a picture, the state or the instruction is missing or has another form
 */
export function readObservation(
  message: Message,
  expected: ExpectedObservation,
  keys: ObservationKeys = {},
): ReadObservation {
  const found = leaves(message).filter(([key]) => key !== '');
  if (found.length === 0) throw new InputError('the observation is no map with keys; send one as openpi does');
  const unused = new Set(found.map(([key]) => key));
  const take = (name: string, given: string | undefined): Message | undefined => {
    const matches = found.filter(([key]) =>
      given === undefined ? plainName(key) === plainName(name) : plainPath(key) === plainPath(given),
    );
    if (matches.length > 1)
      throw new InputError(`${matches.map(([key]) => quote(key)).join(' and ')} are both ${quote(name)}: send one`);
    for (const [key] of matches) unused.delete(key);
    return matches[0]?.[1];
  };
  const missing = (what: string, option: string) =>
    new InputError(
      `no ${what}: the observation has ${namesOf(found.map(([key]) => key))}; insula serve --key ${option}=KEY names another`,
    );
  const images: Record<string, Image | null> = {};
  for (const camera of expected.cameras) {
    const value = take(camera, keys.cameras?.[camera]);
    if (value === undefined) throw missing(`picture of camera ${quote(camera)}`, camera);
    images[camera] = value === null ? null : imageOf(value, camera);
  }
  const parts = (keys.state ?? ['state']).map((key) => take('state', keys.state && key));
  const lacking = parts.includes(undefined);
  if (expected.state !== null && lacking) throw missing('state', 'state');
  const state = lacking ? null : parts.flatMap((own) => numbersOf(own!, 'state'));
  if (expected.state !== null && state!.length !== expected.state)
    throw new InputError(
      `the state has ${state!.length} numbers; this policy was trained with ${expected.state}: send those of its robot`,
    );
  const named = take('prompt', keys.prompt);
  const prompt = named === undefined && keys.prompt === undefined ? take('task', undefined) : named;
  if (prompt === undefined) throw missing('prompt, which is None where there is no instruction', 'prompt');
  if (prompt !== null && typeof prompt !== 'string') throw new InputError('the prompt is no text; send one string');
  if (prompt?.includes('\ufffd')) throw new InputError('the prompt is no UTF-8');
  const reset = truthOf(take('reset', undefined) ?? false);
  return {
    observation: { images, state: expected.state === null ? null : state, instruction: prompt, robot: expected.robot },
    ...{ reset, unused: [...unused] },
  };
}

const plainPath = (key: string) => key.replaceAll('.', '/');

/** Keys for a line: a message may have thousands. */
export function namesOf(keys: readonly string[]): string {
  const most = 20;
  const more = keys.length > most ? ` and ${keys.length - most} more` : '';
  return keys.slice(0, most).map(quote).join(', ') + more;
}

/** A truth as Python's and NumPy's types write it. */
function truthOf(value: Message): boolean {
  const own = value instanceof NumberArray && value.data.length === 1 ? value.data[0] : value;
  if (own !== true && own !== false && own !== 0 && own !== 1)
    throw new InputError(`reset is ${quote(own)}; send True or False`);
  return Boolean(own);
}

function numbersOf(value: Message, what: string): number[] {
  if (value instanceof NumberArray && value.data.length > MOST_NUMBERS)
    throw new InputError(`the ${what} has ${value.data.length} numbers; at most ${MOST_NUMBERS} are read`);
  const numbers =
    value instanceof NumberArray && value.shape.length <= 1
      ? [...value.data]
      : Array.isArray(value)
        ? value
        : typeof value === 'number'
          ? [value]
          : null;
  if (!numbers) throw new InputError(`the ${what} is no list of numbers; send an array of one axis`);
  const wrong = numbers.findIndex((own) => !Number.isFinite(own));
  if (wrong >= 0) throw new InputError(`the ${what} has ${numbers[wrong]} at ${wrong}; send finite numbers`);
  return numbers;
}

function imageOf(value: Message, camera: string): Image {
  const refuse = (problem: string) => new InputError(`camera ${quote(camera)}: ${problem}`);
  if (!(value instanceof NumberArray))
    throw refuse('no array; send [height, width, 3] or [3, height, width], or None for a camera that is not there');
  const { shape, data } = value;
  const planar = shape.length === 3 && shape[2] !== 3;
  if (shape.length !== 3 || shape[planar ? 0 : 2] !== 3)
    throw refuse(`shape [${shape.join(', ')}]; expected [height, width, 3] or [3, height, width]`);
  const [height, width] = planar ? shape.slice(1) : shape;
  if (height * width === 0) throw refuse(`${height} x ${width} pixels`);
  const bytes = data instanceof Uint8Array ? data : bytesOf(data, refuse);
  if (!planar) return { height, width, pixels: bytes };
  const pixels = new Uint8Array(bytes.length);
  for (let i = 0; i < height * width; i++)
    for (let c = 0; c < 3; c++) pixels[3 * i + c] = bytes[c * height * width + i];
  return { height, width, pixels };
}

function bytesOf(data: Float32Array | Float64Array, refuse: (problem: string) => InputError): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i++) {
    const own = data[i];
    if (!(own >= 0 && own <= 1)) throw refuse(`${own} at number ${i}; pictures are bytes, or floats from 0 to 1`);
    bytes[i] = Math.trunc(255 * own); // as openpi makes bytes of them
  }
  return bytes;
}
