import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { framesOf } from '../bench/tabletop/frames.ts';
import { worldPacks } from '../bench/tabletop/packs.ts';
import { TabletopWorld } from '../bench/tabletop/world.ts';
import { evaluate } from '../cli/evaluate.ts';
import { concluded } from '../cli/pretraining-scores.ts';
import { Progress } from '../cli/progress.ts';
import type { SeeingResult } from '../cli/seeing.ts';
import { columnStatistics } from '../model/data/index.ts';
import { Policy } from '../model/policy/policy.ts';
import {
  type PretrainingResult,
  preparePretraining,
  pretrainingSettings,
  runPretraining,
} from '../model/training/pretrain.ts';
import { openVisionLanguageModel } from '../model/training/vision-language-file.ts';
import { testDevice } from './support/devices.ts';
import { runCommand } from './support/run-command.ts';
import { minutePreset, quietListener } from './support/synthetic-dataset.ts';
import { trainRun } from './support/train-run.ts';
import { writeSeeing } from './support/vision-language.ts';

const preset = { ...minutePreset, vision: { ...minutePreset.vision, image: 64 } };

let folder = '';
const at = (name: string) => join(folder, name);
let result: PretrainingResult;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-seeing-'));
  const world = await TabletopWorld.create();
  const kinds = [{ task: 'place', variation: 'rich' }] as const;
  const settings = { seed: 0, from: 2 ** 20, scenes: 4, each: 3, kinds };
  const frames = Array.from({ length: 4 }, (_, i) => framesOf(world, settings, i)).flat();
  world.delete();
  const states = columnStatistics([Float32Array.from(frames.flatMap(({ state }) => state))], 4);
  const source = worldPacks(frames.slice(2), frames.slice(0, 2), { seed: 0, states });
  const run = pretrainingSettings({ preset, steps: 2 });
  const prepared = await preparePretraining({ settings: run, source, listener: quietListener() });
  result = await runPretraining(await testDevice('normal'), prepared, { checkpointPath: at('checkpoint.safetensors') });
});
afterAll(async () => {
  result.model.dispose();
  await rm(folder, { recursive: true, force: true });
});

class Quiet extends Progress {
  override count(): void {}
}
const conclude = (signal = new AbortController().signal) =>
  concluded(result, { path: folder, command: 'insula pretrain --steps 2', scenes: 1, progress: new Quiet(), signal });

test('a finished run is measured on every set; file, scores and page say the same', async () => {
  const { model, scores, report } = await conclude();
  const { sets, marks, answers } = scores!;
  expect(Object.keys(sets)).toEqual(
    'simple rich pairs words distractors table background light camera masked'.split(' '),
  );
  expect(answers).toBeNull();
  expect(Object.keys(marks!)).toEqual(['simple', 'rich']);
  expect(marks!.rich.all.pictures).toBeGreaterThan(0);
  expect(JSON.parse(await readFile(at('scores.json'), 'utf8'))).toEqual(scores);

  const file = await openVisionLanguageModel(model);
  await file.close();
  expect(file.made).toMatchObject({ command: 'insula pretrain --steps 2', steps: 2 });
  expect(file.made.scores).toMatchObject({
    'rich/free within 4 px': sets.rich.pointing.free.near,
    'camera/other tokens': sets.camera.others.tokens,
    'rich/marks': marks!.rich.all.share,
  });

  const page = await readFile(report!, 'utf8');
  expect(page).not.toMatch(/<script|src="(?!data:)/);
  expect(page.match(/<img /g)).toHaveLength(12);
  expect(page.match(/<figcaption>\w+: the worst of/g)).toHaveLength(6);
  expect(page).toContain('insula pretrain --steps 2');
  expect(page).toContain('<dd>table and floor in one grey</dd>');
  for (const title of ['Token loss', 'Mark loss']) expect(page).toContain(title);

  // Anyone can measure the file again.
  const { json, lines } = await runCommand(evaluate, { checkpoint: model, variation: 'camera', scenes: 1 });
  const seen = json as SeeingResult;
  expect(seen.sets).toEqual({ camera: sets.camera });
  expect([seen.marks, seen.scenes]).toEqual([null, 1]);
  expect(lines[0]).toBe('Places within 4 pixels, and tokens of other questions:');
  expect(lines.some((line) => /^ {2}camera /.test(line))).toBe(true);
});

test('an interrupted measurement leaves a model without scores', async () => {
  const interrupted = new AbortController();
  const spy = vi.spyOn(Policy.prototype, 'generateText').mockImplementation(async (asked) => {
    interrupted.abort();
    return asked.map(() => '');
  });
  const end = await conclude(interrupted.signal).finally(() => spy.mockRestore());
  expect(end).toMatchObject({ scores: null, report: null });
  const file = await openVisionLanguageModel(end.model);
  await file.close();
  expect(file.made.scores).toEqual({});
});

test('options that change nothing are refused, and models that know no states of the world', async () => {
  const refused = (values: object, reason: RegExp) => expect(runCommand(evaluate, values)).rejects.toThrow(reason);
  await writeSeeing(at('own.safetensors'), result.model.device);
  const checkpoint = at('own.safetensors');
  await refused({ checkpoint }, /own\.safetensors: this model was not pretrained on the built-in world/);
  for (const other of [{ episodes: 3 }, { record: at('recorded') }, { task: 'place' }, { data: [folder] }])
    await refused(
      { checkpoint, ...other },
      new RegExp(`^--${Object.keys(other)[0]}: a vision-language model is asked about .*; leave it out$`),
    );
  const policy = at('policy.safetensors');
  (await trainRun(policy, { steps: 1 })).policy.model.dispose();
  await refused({ checkpoint: policy, scenes: 3 }, /^--scenes: a policy acts in --episodes of each set; leave it out$/);
});
