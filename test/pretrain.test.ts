import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { act } from '../cli/act.ts';
import type { Result } from '../cli/command.ts';
import { coTrainingOf } from '../cli/data.ts';
import type { PlanSummary } from '../cli/plan.ts';
import { type PretrainingSummary, pretrain } from '../cli/pretrain.ts';
import { train } from '../cli/train.ts';
import { blockNamed } from '../model/architecture/configuration.ts';
import { encodePng } from '../model/data/index.ts';
import { openVisionLanguageModel } from '../model/training/vision-language-file.ts';
import { runCommand } from './support/run-command.ts';
import { trainRun } from './support/train-run.ts';

type Finished = Result<PretrainingSummary>;

let folder = '';
const at = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-pretrain-'));
  const names = ['cat', 'dog', 'cup', 'pen', 'hat'];
  const pictures = names.map((_, i) => encodePng({ width: 8, height: 8, pixels: new Uint8Array(192).fill(50 * i) }));
  const starts = pictures.map((_, i) => pictures.slice(0, i).reduce((sum, { length }) => sum + length, 0));
  const items = names.map((name, i) => [starts[i], pictures[i].length, name, 'things']);
  const list = { mime: 'image/png', columns: ['offset', 'length', 'name', 'category'], items };
  await writeFile(at('named.json'), JSON.stringify(list));
  await writeFile(at('named.pack'), Buffer.concat(pictures));
  await Promise.all(pictures.map((picture, i) => writeFile(at(`${i}.png`), picture)));
  const lines = pictures.flatMap((_, i) => [
    { image: `${i}.png`, prompt: 'point to it', answer: `<loc0512><loc0${100 * i + 100}>`, kind: 'point' },
    { image: `${i}.png`, prompt: 'what is it?', answer: names[i] },
  ]);
  await writeFile(at('own.jsonl'), lines.map((line) => JSON.stringify(line)).join('\n'));
  await writeFile(at('empty.jsonl'), '');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test('insula pretrain makes a model to ask; interrupted it saves, resumed it finishes', async () => {
  const own = { questions: at('named'), out: at('run'), batch: 2, steps: 3 };
  const interrupted = new AbortController();
  interrupted.abort();
  const begun = await runCommand(pretrain, own, { signal: interrupted.signal });
  expect(begun.status).toBe(130);
  expect(begun.json).toMatchObject({ finished: false, step: 0, model: null });
  await expect(stat(at('run/model.safetensors'))).rejects.toThrow();

  const { json, status } = (await runCommand(pretrain, { out: at('run'), resume: true })) as Finished;
  expect(status).toBe(0);
  expect(json).toMatchObject({ finished: true, step: 3, resumedAt: 0, model: at('run/model.safetensors') });
  const model = await openVisionLanguageModel(json.model!);
  expect(model.made).toMatchObject({ steps: 3, scores: { 'caption answers': json.scores!.answers!.caption.answers } });
  expect(blockNamed(model.configuration, 'image').length).toBe(64);
  await model.close();
  expect(Object.keys(json.scores!.answers!).sort()).toEqual(['caption', 'category', 'guess']);
  expect(await readFile(json.report!, 'utf8')).toContain('Held-out questions');

  const refused = (work: Promise<unknown>, reason: string) => expect(work).rejects.toThrow(reason);
  const checkpoint = at('run/checkpoint.safetensors');
  await refused(runCommand(pretrain, own), 'holds a run of 3 of 3 steps: resume it with --resume');
  await refused(runCommand(pretrain, { out: at('run'), resume: true, steps: 2 }), 'is already at step 3');
  await refused(runCommand(pretrain, { out: at('run'), resume: true, seed: 1 }), '--seed 1: the run was begun with 0');
  await refused(runCommand(train, { out: at('run'), resume: true }), '--resume: insula pretrain began the run in');
  for (const ask of [undefined, 'caption en'])
    await refused(runCommand(act, { checkpoint, ask }), `${checkpoint}: insula pretrain resumes from it`);
});

test('a file of questions: insula pretrain learns from it, and insula train --cotrain beside actions', async () => {
  const questions = at('own.jsonl');
  const { json: plan } = await runCommand(pretrain, { questions, out: at('own'), batch: 2, plan: true });
  await expect(stat(at('own/checkpoint.safetensors'))).rejects.toThrow();
  expect((plan as PlanSummary).memory).toMatchObject({ parameters: expect.any(Number), average: 0 });
  const sizes = { questions, out: at('own'), batch: 2, steps: 2 };
  const { json, status } = (await runCommand(pretrain, sizes)) as Finished;
  expect(status).toBe(0);
  expect(json).toMatchObject({ finished: true, step: 2 });
  expect(Object.values(json.scores!.answers!).map((own) => own.questions)).toEqual([2, 2]);
  expect(Object.keys(json.scores!.answers!).sort()).toEqual(['point', 'question']);
  await expect(runCommand(pretrain, { questions: at('empty.jsonl'), out: at('none') })).rejects.toThrow(
    'empty.jsonl: number of images: 0; questions need at least four',
  );

  const { questions: asked, heldOut } = (await coTrainingOf({ questions, seed: 1 }, null))!;
  expect([asked.size, heldOut.length]).toEqual([6, 4]);
  const trained = await trainRun(at('robot.safetensors'), {
    ...{ system: 'knowledge-insulation', batch: 4, cotrain: 0.5, steps: 1 },
    coTraining: { questions: asked, heldOut },
  });
  expect(trained.answers!.map(({ answer }) => answer).sort()).toEqual(heldOut.map(({ answer }) => answer).sort());
  expect(trained.history.heldOut.at(-1)!.losses.answer).toBeGreaterThan(0);
  trained.policy.model.dispose();
});
