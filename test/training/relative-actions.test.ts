import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readSafetensors } from '../../engine/index.ts';
import { Model } from '../../model/architecture/model.ts';
import { ownSlotMap } from '../../model/data/index.ts';
import { Encoding, type EncodingSettings } from '../../model/policy/encoding.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { leRobotType, writeLeRobotPolicy } from '../../model/training/lerobot-policy.ts';
import { openPublicPolicy } from '../../model/training/public-policy.ts';
import { TextTokenizer } from '../../tokenizers/index.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose, normals } from '../support/numbers.ts';

// INSULA_LEROBOT names a Python with LeRobot (pip install "lerobot[pi]"), which judges what is read here.
const python = process.env.INSULA_LEROBOT;
const program = fileURLToPath(new URL('relative-actions.py', import.meta.url));

const WIDTH = 6;
const configuration = configurationOf(systemNamed('pi05'), {
  backbone: { width: 64, hidden: 96 },
  expert: { width: 32, hidden: 48 },
  ...{ depth: 1, heads: 8, kvHeads: 1, headDimension: 16, vocabulary: TextTokenizer.default().vocabularySize },
  vision: { width: 32, depth: 1, heads: 2, hidden: 40, patch: 14, imageHeight: 28, imageWidth: 28, cameras: 1 },
  ...{ promptTokens: 64, targetTokens: 1, horizon: 4, actionDimension: WIDTH, stateDimension: WIDTH },
});
const numbers = (length: number, from: number) => Array.from({ length }, (_, i) => from + i / 4);
const columns = (length: number) => ({
  ...{ count: 9, mean: numbers(length, 0), std: numbers(length, 1), min: numbers(length, -3), max: numbers(length, 4) },
  ...{ q01: numbers(length, -2), q99: numbers(length, 3) },
});
function encodingOf(actions: number, states: number): EncodingSettings {
  const statistics = { bound: 1e9, actions: columns(actions), states: columns(states) };
  const slots = ownSlotMap({ name: 'robot', actionDimension: actions, stateDimension: states }, WIDTH);
  const isPadded = actions < WIDTH || states < WIDTH;
  return {
    ...{ stateAsText: true, stateBins: 256, cameras: ['top'], actions: null },
    statistics: isPadded ? null : statistics,
    ...(isPadded && { robots: { robot: { slots, statistics } } }),
  };
}

let root = '';
let made = 0;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'insula-relative-'));
});
afterAll(() => rm(root, { recursive: true, force: true }));

async function folderOf(actions: number, states: number): Promise<string> {
  using model = new Model(await testDevice('normal'), configuration);
  model.initialise(3);
  const folder = join(root, `${made++}`);
  await writeLeRobotPolicy(folder, model, { configuration, encoding: encodingOf(actions, states) }, true);
  return folder;
}

async function settingsOf(folder: string, statistics?: string) {
  const policy = await openPublicPolicy(folder, { rate: 10, statistics });
  await policy.close();
  return policy.settings;
}

/** Puts LeRobot's step of relative actions before the others. */
async function makeRelative(folder: string, config: object): Promise<string> {
  const file = join(folder, 'policy_preprocessor.json');
  const { steps, ...own } = JSON.parse(await readFile(file, 'utf8'));
  const step = { registry_name: 'relative_actions_processor', config };
  await writeFile(file, JSON.stringify({ ...own, steps: [step, ...steps] }));
  return folder;
}

const state = [1, 2, 3, 5, 7, 11];
const chunk = normals(4 * WIDTH, 8);

describe.each([
  ['padded', 4, 5],
  ['of the width of the model', 6, 6],
])('a robot %s', (_, actions, states) => {
  test.each([
    [{ enabled: true, exclude_joints: ['Grip', ''], action_names: ['x', 'left_gripper', 'z'] }, [1, 0, 1, 1, 1, 1]],
    [{ enabled: true, exclude_joints: ['gripper'], action_names: null }, [1, 1, 1, 1, 1, 1]],
    [{ enabled: true, exclude_joints: [], action_names: ['gripper'] }, [1, 1, 1, 1, 1, 1]],
    [{ enabled: false, exclude_joints: [], action_names: null }, [0, 0, 0, 0, 0, 0]],
  ])('%j', async (config, mask) => {
    const plain = new Encoding(encodingOf(actions, states));
    const { encoding } = await settingsOf(await makeRelative(await folderOf(actions, states), config));
    const own = { state: state.slice(0, states) };
    const expected = plain
      .denormaliseActions(chunk, own)
      .map((value, i) => value + mask[i % actions] * state[i % actions]);
    expectClose(new Encoding(encoding).denormaliseActions(chunk, own), expected, 1e-6, 'actions');
    const isRelative = mask.includes(1);
    const type = () => leRobotType({ configuration, encoding }, true);
    if (isRelative)
      expect(type).toThrow('openpi and LeRobot have no such policy: its actions are relative to the state');
    else expect(type()).toBe('pi05');
  });
});

test('what cannot be: actions relative to no state, and no file that says which are', async () => {
  const few = await makeRelative(await folderOf(5, 4), { enabled: true });
  await expect(settingsOf(few)).rejects.toThrow(
    /policy_preprocessor\.json: actions relative to 5 dimensions of a state that has 4$/,
  );
  const folder = await folderOf(4, 5);
  const config = join(folder, 'config.json');
  await writeFile(
    config,
    JSON.stringify({ ...JSON.parse(await readFile(config, 'utf8')), use_relative_actions: true }),
  );
  await rm(join(folder, 'policy_preprocessor.json'));
  const statistics = join(folder, 'norm_stats.json');
  await writeFile(statistics, JSON.stringify({ norm_stats: { actions: columns(4), state: columns(5) } }));
  await expect(settingsOf(folder, statistics)).rejects.toThrow(
    /its actions are relative to the state, and policy_preprocessor\.json, which says which, is missing$/,
  );
});

test.skipIf(!python)(
  `LeRobot itself makes the same of a chunk${python ? '' : ' (skipped: INSULA_LEROBOT names no Python)'}`,
  { timeout: 300_000 },
  async () => {
    const folder = await folderOf(4, 5);
    await promisify(execFile)(python!, [program, folder], { env: { ...process.env, HF_HUB_OFFLINE: '1' } });
    const reference = await readSafetensors(join(folder, 'reference.safetensors'));
    const read = async (name: string) => (await reference.readFinite(name)) as Float32Array;
    const { encoding } = await settingsOf(folder);
    const robot = new Encoding(encoding);
    const own = { state: await read('state') };
    const [actions, normalised] = [await read('actions'), await read('normalised')];
    const ours = robot.normaliseActions(actions, own);
    expectClose(robot.ownDimensions(ours), normalised, 1e-6, 'normalised');
    expectClose(robot.denormaliseActions(ours, own), await read('absolute'), 1e-6, 'absolute');
    expectClose(await read('absolute'), actions, 1e-5, 'there and back');
    await reference.close();
  },
);
