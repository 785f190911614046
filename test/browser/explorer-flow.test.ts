import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { demonstrations } from '../../bench/tabletop/demonstrations.ts';
import { pretrainedUrl } from '../../model/pretrained/index.ts';
import { BatchMaker } from '../../model/training/batches.ts';
import { exampleSampler } from '../../model/training/co-training.ts';
import { prepareRun } from '../../model/training/prepare-run.ts';
import { recommendedSettings } from '../../model/training/recommended.ts';
import { begunModel, openStart } from '../../model/training/start.ts';
import { Trainer } from '../../model/training/trainer.ts';
import { testDevice } from '../support/devices.ts';
import { quietListener } from '../support/synthetic-dataset.ts';
import { chromiumMissing, chromiumPath } from './chromium.ts';
import { type OpenedExplorer, openExplorer, PATIENCE } from './explorer.ts';

const insulated = 'knowledge-insulation-robot-only';
const joint = 'joint-training-robot-only';
const state = {
  ...{ sides: [{ system: insulated, edges: {} }], preset: 'nano', seed: 3, batch: 1, demonstrations: 2 },
  ...{ every: 0, acts: false, scene: 0 },
};
const link = (changes: Partial<Record<keyof typeof state, unknown>>) =>
  encodeURIComponent(JSON.stringify({ ...state, ...changes }));

describe.skipIf(!chromiumPath)(`gradient flow, live, in Chromium${chromiumMissing}`, () => {
  let explorer: OpenedExplorer;
  beforeAll(async () => {
    explorer = await openExplorer();
  }, PATIENCE.timeout);
  afterAll(() => explorer.close());

  const press = (name: string) => explorer.page.getByRole('button', { name, exact: true }).click();
  const stepTo = async (step: number) => {
    await press('One step');
    const losses = explorer.page.locator('.flow-losses');
    await losses.getByText(`after step ${step}:`).first().waitFor();
    return losses.innerText();
  };
  const matrix = (name: string | RegExp) => explorer.page.getByRole('table', { name });
  /** The map of the second of two sides, which is measured after the first. */
  const secondMap = async (step: number) => {
    const maps = matrix(`Gradients after step ${step}`);
    await expect.poll(() => maps.count(), PATIENCE).toBe(2);
    return maps.last();
  };
  /** The text of a cell in a map of gradients. */
  const cellOf = async (map: ReturnType<typeof matrix>, part: string, loss: string) => {
    await map.waitFor();
    const columns = await map.locator('thead th').allInnerTexts();
    const row = map.getByRole('row', { name: new RegExp(`^${part}\\b`) });
    return row.locator('td').nth(columns.indexOf(loss)).innerText();
  };

  test('the losses of its first steps from the shipped model are those of the library in node', PATIENCE, async () => {
    await explorer.show('flow', link({ preset: 'tiny' }));
    const shown = [await stepTo(1), await stepTo(2)];
    const dataset = await demonstrations({ episodes: state.demonstrations, seed: state.seed });
    const { seed, batch } = state;
    const settings = recommendedSettings({ system: insulated, seed, batch });
    const from = await openStart('tiny');
    const { encoding, configuration, split } = await prepareRun({ settings, dataset, from, listener: quietListener() });
    using model = await begunModel(await testDevice('normal'), configuration, seed, from);
    await from.close();
    const maker = new BatchMaker(encoding, configuration, settings);
    using trainer = new Trainer(model, maker, exampleSampler(split, settings), settings);
    for (const [step, text] of shown.entries()) {
      const losses = Object.entries((await (await trainer.step(step)).outcome).losses);
      expect(losses.map(([name]) => name)).toEqual(['token', 'flow']);
      for (const [name, loss] of losses) {
        const [, own] = new RegExp(`${name} (\\d+\\.\\d+)`).exec(text)!;
        expect(Math.abs(Number(own) - loss), `${name} of ${text}`).toBeLessThan(1e-3 * loss);
      }
    }
  });

  test(
    'two systems side by side: both act, and edges that are cut keep a loss from the backbone, to the last bit',
    PATIENCE,
    async () => {
      const { page } = explorer;
      const unknown = { system: joint, edges: { 'action/target': 1 } };
      await explorer.show('flow', link({ sides: [{ system: insulated, edges: {} }, unknown], every: 1 }));
      await press('One step');
      await page.getByText('"action/target": this system has no such edge').waitFor();
      await page.getByRole('button', { name: "The system's own edges" }).last().click();
      const [, own, other] = /A: after step 1: (.*) B: after step 1: (.*)/s.exec(
        (await stepTo(1)).replace(/\s+/g, ' '),
      )!;
      expect(own.trim()).toBe(other.trim());
      const open = await secondMap(1);
      expect(Number(await cellOf(open, 'backbone layer 0', 'flow'))).toBeGreaterThan(0);
      expect(await cellOf(open, 'backbone layer 0', 'cos token, flow')).toMatch(/^−?0\.\d\d$/);
      await press('Act in this scene');
      await press('Read the attention now');
      await page
        .getByText(/^action reads image \d+ %, language \d+ %/)
        .first()
        .waitFor();
      for (const query of ['numbers', 'action'])
        for (const key of ['image', 'language', 'subtask'])
          await press(`${query} reads ${key}: 100 % of the gradient passes. Cut it`);
      await stepTo(2);
      expect(decodeURIComponent(new URL(page.url()).hash)).toContain("'action/image':0");
      const cut = await secondMap(2);
      for (const part of ['vision layer 0', 'backbone embed_tokens', 'backbone layer 0', 'backbone layer 1'])
        expect(await cellOf(cut, part, 'flow'), part).toBe('0');
      expect(Number(await cellOf(cut, 'expert layer 0', 'flow'))).toBeGreaterThan(0);
      await page.getByText(/^Changed after step 1: the step was captured anew/).waitFor();
      await press('Measure now, and explain zeros');
      await page.getByText('T: cut by the table').last().waitFor();
      await expect.poll(() => cellOf(cut, 'backbone layer 0', 'flow'), PATIENCE).toBe('T');
      await stepTo(3);
      expect(await cellOf(await secondMap(3), 'backbone layer 0', 'flow')).toBe('T');
      await expect.poll(() => page.getByText(/^In the end: /).count(), PATIENCE).toBe(2);
    },
  );

  test('training goes on after a visit to another section', PATIENCE, async () => {
    const { page } = explorer;
    await explorer.show('flow', link({}));
    await press('Measure now, and explain zeros');
    await matrix('Gradients after step 0').waitFor();
    await page.locator('.flow-curves').getByText('Nothing is trained yet.').waitFor();
    await press('Train');
    const losses = page.locator('.flow-losses');
    await losses.getByText('after step').waitFor();
    await page.getByRole('link', { name: 'Actions as tokens' }).click();
    await page.getByLabel('Tokens of FAST', { exact: true }).waitFor();
    await page.getByRole('link', { name: 'Gradient flow' }).click();
    const [, step] = /step (\d+):/.exec(await losses.innerText())!;
    await losses.getByText(new RegExp(`after step (${Number(step) + 1}|${Number(step) + 2}):`)).waitFor();
    await press('Pause');
  });

  test(
    'a file to begin from: one of other sizes, and one that is none, are told; the right one is trained',
    PATIENCE,
    async () => {
      const { page, show } = explorer;
      await show('flow', link({}));
      const file = page.getByLabel('Begin from a file of insula pretrain');
      await file.setInputFiles(fileURLToPath(pretrainedUrl('tiny')!));
      await press('One step');
      await page
        .getByText(/^tiny\.safetensors: depth is 3, and that of preset nano is 2: give --preset tiny/)
        .waitFor();
      await file.setInputFiles(fileURLToPath(new URL('../../README.md', import.meta.url)));
      await press('One step');
      await page.getByText(/^README\.md: not a safetensors file/).waitFor();
      await page.getByLabel('Size').selectOption('tiny');
      await file.setInputFiles(fileURLToPath(pretrainedUrl('tiny')!));
      await stepTo(1);
    },
  );

  test('a damaged link and missing physics are told in one sentence', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('flow', link({ batch: 0 }));
    await page.getByText('The link to this page is damaged').waitFor();
    await page.route('**/mujoco/*', (route) => route.abort());
    await show('flow', link({}));
    await press('One step');
    await page.getByText('needs a package that is not installed: npm install @mujoco/mujoco').waitFor();
    await page.unroute('**/mujoco/*');
  });

  test('nothing goes wrong that the page does not tell', () => {
    expect(explorer.errors.filter((line) => !line.includes('net::ERR_FAILED'))).toEqual([]);
  });
});
