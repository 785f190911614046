import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { act } from '../cli/act.ts';
import type { TypedCommand } from '../cli/command.ts';
import { evaluate } from '../cli/evaluate.ts';
import { givenEncoding } from '../cli/given-encoding.ts';
import type { Options, ValuesOf } from '../cli/options.ts';
import { Progress } from '../cli/progress.ts';
import { runFolder } from '../cli/run-folder.ts';
import { train } from '../cli/train.ts';
import { InputError, readSafetensors, type TensorToWrite, writeSafetensors } from '../engine/index.ts';
import { openDataset } from '../model/data/index.ts';
import { writeTokenizer } from '../model/policy/tokenizer-file.ts';
import { openCheckpoint } from '../model/training/checkpoint.ts';
import { FastTokenizer } from '../tokenizers/index.ts';
import { actionsFile } from './data/synthetic.ts';
import { runCommand } from './support/run-command.ts';
import { trainRun } from './support/train-run.ts';

// The whole path in this process: what `insula` prints is the message, alone, behind its own name (test/cli.test.ts).

let folder = '';
const at = (name: string) => join(folder, name);
const CHECKPOINT = 'run/checkpoint.safetensors';

/** Values of a command's options. */
type Values<C> = C extends TypedCommand<infer O extends Options, unknown> ? ValuesOf<O> : never;

class Quiet extends Progress {
  override note() {}
  override count() {}
}

interface DataSettings {
  steps?: number;
  dimension?: number;
  stateDimension?: number;
  language?: string;
  /** In place of the action of the last step. */
  last?: number;
}

/** Writes a data folder of two episodes with states and language. */
async function writeData(name: string, settings: DataSettings = {}): Promise<void> {
  const {
    steps = 6,
    dimension = 3,
    stateDimension = 2,
    language = 'put the red cube in the blue bin',
    last,
  } = settings;
  const rows = (width: number) =>
    Array.from({ length: steps }, (_, step) => Array.from({ length: width }, (_, d) => Math.sin(step + d)));
  const actions = rows(dimension);
  if (last !== undefined) actions[steps - 1][0] = last;
  const ids = ['first', 'second'];
  const tables = ids.flatMap((id) => [
    [`${id}/action`, actions],
    [`${id}/state`, rows(stateDimension)],
  ]);
  const episodes = ids.map((id) => ({ id, steps, language }));
  await mkdir(at(name));
  const index = { format: 1, datasets: { made: { control_hz: 4, actions: 'made.safetensors', episodes } } };
  await writeFile(at(`${name}/index.json`), JSON.stringify(index));
  await writeFile(at(`${name}/made.safetensors`), await actionsFile(Object.fromEntries(tables)));
}

/** The checkpoint, with changes, as another file. */
async function changed(
  name: string,
  change: { tensor?: (tensor: TensorToWrite) => TensorToWrite | null; metadata?: (json: Json) => unknown },
): Promise<void> {
  const file = await readSafetensors(at(CHECKPOINT));
  const tensors: TensorToWrite[] = [];
  for (const { name, dtype, shape } of file.tensors.values()) {
    const tensor = { name, dtype, shape, data: await file.read(name, dtype) };
    const kept = change.tensor ? change.tensor(tensor) : tensor;
    if (kept) tensors.push(kept);
  }
  const json = JSON.parse(file.metadata.get('insula')!);
  const text = change.metadata ? change.metadata(json) : json;
  await file.close();
  const insula = typeof text === 'string' ? text : JSON.stringify(text);
  await writeSafetensors(at(name), tensors, { metadata: { insula } });
}

// biome-ignore lint/suspicious/noExplicitAny: what a checkpoint's metadata holds
type Json = any;

const weight = 'action_in_proj.weight';
const onWeight = (change: (tensor: TensorToWrite) => TensorToWrite | null) => ({
  tensor: (tensor: TensorToWrite) => (tensor.name === weight ? change(tensor) : tensor),
});

/** Every file below the folder with its size. */
async function files(): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const listed = entries.map(async (entry) => {
    const path = join(entry.parentPath, entry.name);
    return `${path} ${entry.isFile() ? (await readFile(path)).length : 'folder'}`;
  });
  return (await Promise.all(listed)).sort();
}

/** Fails with one line, leaving everything as it was. */
async function expectLine(run: () => Promise<unknown>, message: RegExp): Promise<void> {
  const before = await files();
  const error = await run().then(
    () => null,
    (error) => error,
  );
  expect(error).toBeInstanceOf(InputError);
  expect(error.message).toMatch(message);
  expect(error.message).not.toContain('\n');
  expect(await files()).toEqual(before);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-input-'));
  await writeData('data');
  await mkdir(at('run'));
  const dataset = await openDataset(at('data'), 'made');
  const run = await trainRun(at(CHECKPOINT), { dataset, data: [at('data')], seed: 0, steps: 1 });
  run.policy.model.dispose();
  const whole = await readFile(at(CHECKPOINT));
  await writeFile(at('short.safetensors'), whole.subarray(0, 5));
  await writeFile(at('header.safetensors'), whole.subarray(0, 500));
  await writeFile(at('data.safetensors'), whole.subarray(0, whole.length - 1));
  await writeFile(at('text.safetensors'), 'a line of text, longer than the eight bytes of a header length');
  await writeFile(at('other.safetensors'), await actionsFile({ x: [[1]] }));
  await changed('json.safetensors', { metadata: () => '{"format": 2' });
  await changed('null.safetensors', { metadata: () => 'null' });
  await changed('earlier.safetensors', { metadata: (json) => ({ ...json, format: 4 }) });
  await changed('later.safetensors', { metadata: (json) => ({ ...json, format: 6 }) });
  await changed('moved.safetensors', {
    metadata: (json) => {
      json.settings.run.data = [at('gone')];
      return json;
    },
  });
  await changed('lacking.safetensors', { metadata: ({ settings, ...json }) => json });
  await changed('statistics.safetensors', {
    metadata: (json) => {
      json.settings.encoding.statistics.actions.q01 = [0];
      return json;
    },
  });
  await changed(
    'without.safetensors',
    onWeight(() => null),
  );
  await changed(
    'shape.safetensors',
    onWeight((tensor) => ({ ...tensor, shape: [...tensor.shape].reverse() })),
  );
  await changed(
    'dtype.safetensors',
    onWeight((tensor) => ({ ...tensor, dtype: 'I32', data: new Int32Array((tensor.data as Float32Array).buffer) })),
  );
  await changed(
    'nan.safetensors',
    onWeight((tensor) => ({
      ...tensor,
      data: (tensor.data as Float32Array).map((x, i) => (i === 7 ? Number.NaN : x)),
    })),
  );
  await mkdir(at('moment'));
  await changed('moment/checkpoint.safetensors', {
    tensor: (tensor) => (tensor.name === `optimizer/firstMoment/${weight}` ? null : tensor),
  });
  await writeData('long', { language: 'put the red cube in the blue bin, '.repeat(9) });
  await writeData('wide', { dimension: 4 });
  await writeData('tall', { stateDimension: 5 });
  await writeData('nothing', { last: Number.NaN });
  await writeData('cut');
  await writeFile(at('cut/made.safetensors'), (await readFile(at('data/made.safetensors'))).subarray(0, 400));
  await writeData('different', { last: 0.5 });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('a checkpoint', () => {
  test.each([
    ['none', /none\.safetensors: cannot open it: no such file or folder$/],
    ['short', /short\.safetensors: cut off: 5 bytes/],
    ['header', /header\.safetensors: cut off, or not a safetensors file/],
    ['data', /data\.safetensors: tensor ".*" is cut off or out of range/],
    ['text', /text\.safetensors: not a safetensors file/],
    ['other', /other\.safetensors: a safetensors file, but not a checkpoint of Insula/],
    ['json', /json\.safetensors: damaged: the checkpoint's metadata is not JSON/],
    ['null', /null\.safetensors: the checkpoint does not say its format; this version reads format 5: train it anew/],
    ['earlier', /earlier\.safetensors: checkpoint format 4; this version reads format 5: train it anew/],
    ['later', /later\.safetensors: checkpoint format 6; this version reads format 5: train it anew/],
    ['lacking', /lacking\.safetensors: damaged: the checkpoint's metadata: "settings": missing$/],
    [
      'statistics',
      /statistics\.safetensors: damaged: .*"settings\.encoding\.statistics\.actions": expected lists of the same length/,
    ],
    ['without', /without\.safetensors: tensor "action_in_proj\.weight" is not in the file/],
    ['shape', /shape\.safetensors: tensor "action_in_proj\.weight" has shape \[3, 16\], \[16, 3\] was expected$/],
    ['dtype', /dtype\.safetensors: tensor "action_in_proj\.weight" has dtype I32, a floating-point type was expected$/],
    ['nan', /nan\.safetensors: damaged: tensor "action_in_proj\.weight" holds NaN at element 7$/],
  ])('%s', async (name, message) => {
    const options = { checkpoint: at(`${name}.safetensors`), data: [at('data')] };
    await expectLine(() => runCommand(act, options), message);
  });

  test('that is a folder, or is not named', async () => {
    await expectLine(() => runCommand(evaluate, { checkpoint: folder }), /: is a folder, not a file; insula convert/);
    await mkdir(at('a run'));
    await writeFile(at('a run/checkpoint.safetensors'), '');
    await expectLine(
      () => runCommand(evaluate, { checkpoint: at('a run') }),
      /is the folder of a run; its policy is --checkpoint .*a run.checkpoint\.safetensors$/,
    );
    await expectLine(() => runCommand(evaluate, {}), /^name the file of the policy with --checkpoint/);
  });
});

test('a tokenizer and statistics that training cannot take', async () => {
  const shape = { statistics: null, horizon: 4, dimension: 3, dataset: 'made', rate: 4 };
  await expectLine(
    () => givenEncoding({ tokenizer: null, statistics: at('data/index.json') }),
    /index\.json: .*"norm_stats"/,
  );
  const columns = (count: number) => {
    const list = new Array(count).fill(1);
    return { mean: list, std: list, q01: list, q99: list };
  };
  const fast = FastTokenizer.fit([{ horizon: 1, dimension: 4, data: new Float32Array(4) }]);
  await writeTokenizer(at('four.json'), { tokenizer: fast, ...shape, dimension: 4 });
  await writeFile(at('four_stats.json'), JSON.stringify({ norm_stats: { actions: columns(4) } }));
  const dataset = await openDataset(at('data'), 'made');
  const check = async (files: { tokenizer?: string; statistics?: string }) =>
    (await givenEncoding({ tokenizer: null, statistics: null, ...files }))(dataset);
  await expectLine(
    () => check({ tokenizer: at('four.json') }),
    /--tokenizer .*four\.json: "dimension" is 4, data set "made" has 3: fit one with insula tokenize fit$/,
  );
  await expectLine(
    () => check({ statistics: at('four_stats.json') }),
    /--statistics .*four_stats\.json: statistics of 4 dimensions of actions, data set "made" has 3: of another robot\?$/,
  );
});

describe('the input of insula act', () => {
  test.each<[string, Values<typeof act> & { set?: string }, RegExp]>([
    ['no data', {}, /gone: there is no such file or folder; .* was trained on it: say where it lies with --data$/],
    ['no folder', { set: 'nowhere' }, /^nowhere: there is no such file or folder$/],
    ['no such set', { dataset: ['other'] }, /index\.json: no data set "other"; there are made$/],
    [
      'a long instruction',
      { set: 'long' },
      /^instruction "put .*\.\.\. gives a prompt of \d+ tokens; this model takes/,
    ],
    ['other actions', { set: 'wide' }, /^"made" has 4 action dimensions; .* was trained with 3: give/],
    ['other states', { set: 'tall' }, /^"made" has 5 state dimensions; .* was trained with 2: give/],
    ['NaN', { set: 'nothing' }, /made\.safetensors, tensors .*: episode "first": "action", step 5, dimension 0 is NaN/],
    ['a cut-off file', { set: 'cut' }, /made\.safetensors: tensor ".*" is cut off or out of range/],
    [
      'no such episode',
      { episode: 'third' },
      /^--episode "third": "made" has 2 episodes, 0 to 1, the first called "first"$/,
    ],
    ['no such step', { step: 6 }, /^--step 6: episode "first" has steps 0 to 5$/],
    ['no such adapter', { adapter: 'no such thing' }, /^no WebGPU adapter with 'no such thing' in its name opens/],
  ])('%s', async (name, options, message) => {
    const { set = 'data', ...others } = options;
    const data = name === 'no data' ? undefined : [set === 'nowhere' ? set : at(set)];
    const checkpoint = at(name === 'no data' ? 'moved.safetensors' : CHECKPOINT);
    await expectLine(() => runCommand(act, { ...others, data, checkpoint }), message);
  });
});

test('a note reports data of the same width that the policy was not trained on', async () => {
  await writeData('renamed');
  const index = await readFile(at('renamed/index.json'), 'utf8');
  await writeFile(at('renamed/index.json'), index.replace('"made"', '"other"'));
  const notes: string[] = [];
  class Listening extends Quiet {
    override note(line = '') {
      notes.push(line);
    }
  }
  await runCommand(act, { checkpoint: at(CHECKPOINT), data: [at('data')] }, { progress: new Listening() });
  const before = notes.length;
  await runCommand(
    act,
    { checkpoint: at(CHECKPOINT), data: [at('renamed')], dataset: ['other'] },
    { progress: new Listening() },
  );
  expect(notes.slice(before)).toContainEqual(
    expect.stringMatching(/^"other" is not what .* was trained on: its actions keep the units and ranges of "made"$/),
  );
  expect(notes.slice(0, before).filter((line) => line.includes('trained on'))).toEqual([]);
});

describe('a training run', () => {
  const run = (options: Values<typeof train>) =>
    runCommand(train, { data: [at('data')], dataset: ['made'], out: at('new/folder'), ...options });

  test.each<[string, Values<typeof train>, RegExp]>([
    ['data set', { dataset: ['other'] }, /index\.json: no data set "other"; there are made$/],
    ['horizon', { horizon: 7 }, /^horizon 7 is longer than the longest episode of data set "made", which has 6 steps/],
    ['adapter', { adapter: 'no such thing' }, /^no WebGPU adapter with 'no such thing' in its name opens/],
    [
      'start',
      { from: 'gone.safetensors' },
      /^gone\.safetensors: there is no such file; the vision-language models .* are tiny/,
    ],
    [
      'run to resume',
      { resume: true },
      /^--resume: there is no checkpoint in .*new\/folder; leave --resume out to begin a run$/,
    ],
    ['batch of a million million', { batch: 2 ** 40 }, /^batch 1099511627776: this adapter takes at most \d+ examples/],
  ])('a wrong %s', async (_, options, message) => {
    await expectLine(() => run(options), message);
  });

  // The folder of the data is not there, so these are refused before any data are opened.
  test.each<[Values<typeof train>, RegExp]>([
    [{ steps: 3, 'act-every': 4 }, /^--act-every 4: the run has 3 steps; give fewer, or leave it out$/],
    [{ system: 'pi0', gates: 1 }, /^--gates: pi0 has no adaptive norms; leave it out, or choose another --system$/],
    [{ system: 'pi0-fast', freeze: ['expert'] }, /^--freeze expert: no group .* there are vision, backbone$/],
    [{ freeze: ['backbon'] }, /^--freeze backbon: no group and no parameter has this name; did you mean backbone\?$/],
    [{ rates: { 'no such *': 2 } }, /^--rates no such \*=2: no group .* there are vision, backbone, expert$/],
    [{ freeze: ['*'] }, /^--freeze: nothing is left to train; freeze less$/],
    [{ freeze: ['vision', 'backbone', 'expert'] }, /^--freeze: nothing is left to train/],
    [
      { freeze: ['expert'], rates: { 'action_in_proj.*': 2 } },
      /^--rates action_in_proj\.\*=2 changes nothing, because --freeze keeps these parameters; leave it out$/,
    ],
    [
      { rates: { expert: 2, '*': 3 } },
      /^--rates expert=2 changes nothing, because others match the same parameters; leave it out$/,
    ],
    [{ freeze: ['vision', 'vision'] }, /^--freeze vision changes nothing, because others match the same/],
    [{ rates: { '*': 3, expert: 2 }, freeze: ['vision'], gates: 1 }, /^.*nowhere: there is no such file or folder$/],
    [
      { system: 'pi0', 'gradient-scale': 0.1 },
      /^--gradient-scale: pi0 stops the gradient of no edge; leave it out, or choose another --system$/,
    ],
    [{ lora: 4, 'lora-on': ['actor'] }, /^--lora-on actor: no expert of .* has this name; there are backbone, expert$/],
    [{ lora: 4, 'lora-on': ['expert', 'expert'] }, /^--lora-on expert,expert: expert is there twice; name it once$/],
    [{ lora: 999, gates: 1 }, /^--lora 999: .*k_proj\.weight is \[\d+, \d+\]: the rank is at most \d+$/],
    [
      { lora: 4, 'lora-on': ['backbone'], freeze: ['backbone'] },
      /^--lora-on backbone: --freeze keeps the low-rank matrices of backbone too: give --lora-on expert$/,
    ],
    [
      { lora: 4, freeze: ['*'] },
      /^--lora 4: --freeze keeps the low-rank matrices of backbone too: leave one of them out$/,
    ],
    [{ lora: 4, system: 'frozen-backbone' }, /^--lora 4: frozen-backbone freezes backbone: give --lora-on expert$/],
    [{ system: 'pi0', tokens: 'bins' }, /^--tokens: pi0 has no discrete tokens; leave it out/],
  ])('settings of parameters and tokens that change nothing: %o', async (options, message) => {
    await expectLine(() => run({ ...options, data: [at('nowhere')], dataset: undefined }), message);
  });

  test('settings of the parameters of images, on data without images', async () => {
    const message = /^--freeze vision: no group and no parameter has this name; there are backbone, expert$/;
    await expectLine(() => run({ freeze: ['vision'] }), message);
  });

  test('NaN in the data, and data that are cut off', async () => {
    await expectLine(() => run({ data: [at('nothing')] }), /episode "first": "action", step 5, dimension 0 is NaN/);
    await expectLine(() => run({ data: [at('cut')] }), /is cut off or out of range/);
  });

  test('a folder that cannot be made', async () => {
    const message = /^--out .*data\.safetensors: cannot make this folder: a file of this name is there$/;
    await expectLine(() => run({ out: at('data.safetensors') }), message);
  });

  test.skipIf(process.platform !== 'linux')('a folder that takes no files', async () => {
    await expectLine(
      () => run({ out: '/proc/self', overwrite: true }),
      /^--out \/proc\/self: cannot write in this folder: /,
    );
  });

  test('a folder that holds a run, or something else of that name', async () => {
    const words = 'replace it with --overwrite, or choose another folder with --out$';
    const message = new RegExp(
      `run.checkpoint\\.safetensors holds a run of 1 of 1 steps: resume it with --resume, ${words}`,
    );
    await expectLine(() => run({ out: at('run') }), message);
    await mkdir(at('foreign'));
    await writeFile(at('foreign/summary.json'), '{}');
    await expectLine(
      () => run({ out: at('foreign') }),
      /foreign: the folder holds "summary\.json"; choose an empty or a new folder, or/,
    );
    await mkdir(at('damaged'));
    await writeFile(at('damaged/checkpoint.safetensors'), 'text');
    await expectLine(() => run({ out: at('damaged') }), new RegExp(`cut off: 4 bytes.*; ${words}`));
  });

  test('runs in the usual folder are numbered; the last one is resumed or replaced', async () => {
    const usual = at('runs/usual');
    const notes: string[] = [];
    const choose = (options: { resume?: boolean; overwrite?: boolean } = {}) =>
      runFolder({ usual, ...options }, (line) => notes.push(line));
    const leaveRun = async (path: string) =>
      writeFile(join(path, 'checkpoint.safetensors'), await readFile(at(CHECKPOINT)));
    await expectLine(
      () => choose({ resume: true }),
      /^--resume: there is no checkpoint in .*usual; leave --resume out/,
    );
    const first = await choose();
    expect([first.path, notes]).toEqual([usual, []]);
    await expectLine(
      () => runFolder({ out: first.path, usual }, () => {}),
      new RegExp(`usual: another run \\(process ${process.pid}\\) is writing there; wait until it ends`),
    );
    await first.leave();
    await mkdir(first.path, { recursive: true });
    await leaveRun(first.path);
    const unused = await choose();
    expect(unused.path).toBe(`${usual}-2`);
    await unused.leave();
    const second = await choose();
    expect(second.path).toBe(`${usual}-2`);
    expect(notes.at(-1)).toBe(
      `${usual} exists already, so this run goes to ${usual}-2; --resume resumes the last run, --overwrite replaces it`,
    );
    const side = await choose();
    expect(side.path).toBe(`${usual}-3`);
    await leaveRun(second.path);
    await second.leave();
    const resumed = await choose({ resume: true });
    expect([resumed.path, resumed.resume?.progress.step]).toEqual([second.path, 1]);
    await resumed.resume?.close();
    await resumed.leave();
    expect((await choose({ overwrite: true })).path).toBe(second.path);
  });

  test.each<[string, Values<typeof train> & { set?: string; run?: string }, RegExp]>([
    ['seed', { seed: 4 }, /^--seed 4: the run was begun with 0; leave it out/],
    ['system', { system: 'pi05' }, /^--system pi05: the run was begun with pi0; leave it out/],
    ['preset', { preset: 'small' }, /^--preset small: the run was begun with tiny; leave it out/],
    [
      'list of frozen parameters',
      { freeze: ['expert'] },
      /^--freeze expert: the run was begun without it; leave it out/,
    ],
    ['start', { from: 'tiny' }, /^--from tiny: the run was begun without it; leave it out/],
    ['rate', { rates: { expert: 2 } }, /^--rates expert=2: the run was begun without it; leave it out/],
    ['initial gate', { gates: 1 }, /^--gates 1: the run was begun without it; leave it out/],
    [
      'factor of stopped gradients',
      { 'gradient-scale': 0.1 },
      /^--gradient-scale 0.1: the run was begun without it; leave it out/,
    ],
    ['average of the weights', { ema: 0.9 }, /^--ema 0.9: the run was begun without it; leave it out/],
    ['step between acting', { 'act-every': 5 }, /^--act-every 5: the run was begun without it; leave it out/],
    ['kind of action', { delta: true }, /^--delta: the run was begun without it; leave it out/],
    ['kind of tokens', { tokens: 'bins' }, /^--tokens bins: the run was begun without it; leave it out/],
    ['number of steps', { steps: 0 }, /^--steps 0: the run in .* is already at step 1$/],
    ['data', { set: 'different' }, /^data set "made": its numbers have changed/],
    ['optimizer', { run: 'moment' }, /tensor "optimizer\/firstMoment\/action_in_proj\.weight" is not in the file/],
  ])('a resumed run with another %s', async (_, { set = 'data', run: folder = 'run', ...options }, message) => {
    await expectLine(() => run({ resume: true, ...options, data: [at(set)], out: at(folder) }), message);
  });

  test('a run goes on without naming its data again', async () => {
    const notes: string[] = [];
    class Listening extends Quiet {
      override note(line = '') {
        notes.push(line);
      }
    }
    const values = { resume: true, out: at('run'), adapter: 'no such thing' };
    await expect(runCommand(train, values, { progress: new Listening() })).rejects.toThrow('no WebGPU adapter');
    expect(notes.join()).toContain('made');
  });
});

test('a disk that is full when the run is saved: the checkpoint before stays', async () => {
  const before = await readFile(at(CHECKPOINT));
  const handle = await open(at(CHECKPOINT));
  const prototype = Object.getPrototypeOf(handle);
  await handle.close();
  const full = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC', syscall: 'write' });
  const dataset = await openDataset(at('data'), 'made');
  const resume = await openCheckpoint(at(CHECKPOINT));
  const write = vi.spyOn(prototype, 'write').mockRejectedValue(full);
  try {
    await expectLine(
      () => trainRun(at(CHECKPOINT), { dataset, steps: 2, resume }),
      /^step 2 is not saved: .*checkpoint\.safetensors: cannot write it: the disk is full; free some space and try again; .* keeps step 1$/,
    );
    expect(write).toHaveBeenCalled();
  } finally {
    write.mockRestore();
  }
  expect(await readFile(at(CHECKPOINT))).toEqual(before);
});
