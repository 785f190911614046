import { expect, test } from 'vitest';
import { listedStep, measuredTimes, type StepChoice } from '../../bench/explorer/step/capture.ts';
import { digits } from '../../bench/measure/table.ts';
import { inspect } from '../../cli/inspect.ts';
import { loadedKernels } from '../../engine/index.ts';
import { arenaTensors } from '../../model/inspect/step-reading.ts';
import { testDevice } from '../support/devices.ts';
import { long } from '../support/long.ts';
import { runCommand } from '../support/run-command.ts';
import { inExplorer, PATIENCE, rowsOf } from './explorer.ts';

const nano: StepChoice = { system: 'pi0', preset: 'nano', batch: 2, depth: 1, recompute: false };
const link = (choice: StepChoice) => JSON.stringify({ ...choice, axis: 'order', selected: 3 }).replaceAll('"', "'");

test('a captured step says what insula inspect says of one that ran, and which part of it is what', async () => {
  const device = await testDevice('normal');
  const { operations, statistics } = listedStep(device, nano);
  const { system, preset, batch, depth } = nano;
  const { json } = await runCommand(inspect, { step: true, system, preset, batch, depth });
  expect(operations).toEqual((json as { operations: unknown }).operations);
  expect(statistics).toMatchObject({
    ...(json as { statistics: object }).statistics,
    hostMilliseconds: 0,
    encodingMilliseconds: 0,
  });
  for (const { operation, grid } of operations)
    if (grid) expect(loadedKernels.has(operation.split(' ')[0]), `a page of ${operation}`).toBe(true);
  const parts = (list: typeof operations) =>
    list.map(({ phase }) => phase).filter((phase, i, all) => phase !== all[i - 1]);
  expect(parts(operations)).toEqual(['forward', 'backward', 'update']);
  const again = listedStep(device, { ...nano, recompute: true });
  expect(parts(again.operations).slice(0, 4)).toEqual(['forward', 'backward', 'recompute', 'backward']);
  const flopsOf = (list: typeof operations, phase: string) =>
    list.reduce((sum, own) => sum + (own.phase === phase ? (own.flops ?? 0) : 0), 0);
  expect(flopsOf(again.operations, 'forward')).toBe(flopsOf(operations, 'forward'));
  expect(
    again.operations.some(({ phase, operation }) => phase === 'recompute' && /^attention\S* forward/.test(operation)),
  ).toBe(true);
  for (const { operations: list, statistics: own } of [{ operations, statistics }, again]) {
    const tensors = arenaTensors(list);
    const alive = list.map((_, i) =>
      tensors.reduce((sum, { first, last, bytes }) => sum + (first <= i && i <= last ? bytes : 0), 0),
    );
    expect(Math.max(...alive)).toBe(own.lowerBoundBytes);
    for (const a of tensors)
      for (const b of tensors)
        if (a !== b && a.arena === b.arena && a.first <= b.last && b.first <= a.last)
          expect(a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset).toBe(true);
  }
});

test('measured times are those of dispatches, and a measurement that is given up ends', async ({ skip }) => {
  const device = await testDevice('normal');
  if (!device.features.has('timestamp-query')) skip('this adapter has no timestamps');
  const { signal } = new AbortController();
  const times = await measuredTimes(device, nano, signal);
  const { operations } = listedStep(device, nano);
  expect(times.length).toBe(operations.length);
  expect(times.every((time, i) => time >= 0 && (operations[i].grid !== undefined || time === 0))).toBe(true);
  expect(Math.max(...times)).toBeGreaterThan(0);
  await expect(measuredTimes(device, nano, AbortSignal.abort(new Error('given up')))).rejects.toThrow('given up');
});

inExplorer("the explorer's page of a step", (explorer) => {
  test('its figures are those of the library, with recompute and without', PATIENCE, async ({ skip }) => {
    const device = await testDevice('normal');
    if (!device.software)
      skip('another adapter has other variants of the kernels than the software adapter of Chromium');
    const { page, show } = explorer;
    await show('step', link(nano));
    await page.getByText(/^Operation 4 of/).waitFor();
    await page.getByText('without recompute, shown here').waitFor();
    const rows = await rowsOf(page.getByRole('figure', { name: 'What recompute changes' }));
    const steps = [nano, { ...nano, recompute: true }].map((choice) => listedStep(device, choice));
    expect(rows.map((row) => row.slice(1))).toEqual(
      steps.map(({ operations, statistics, flops, arenaBytes }) => [
        String(operations.length),
        ...[flops, arenaBytes, statistics.lowerBoundBytes].map((number) => digits(number / 1e6)),
      ]),
    );
    await page.getByLabel('recompute (activation checkpointing)').check();
    await page.getByRole('row', { name: /^with recompute, shown here/ }).waitFor();
    await page
      .locator('.glance dd')
      .filter({ hasText: new RegExp(`^${digits(steps[1].flops / 1e6)}$`) })
      .waitFor();
  });

  test('keys and buttons select an operation, and it leads to the page of its kernel', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('step', link(nano));
    await page.getByRole('heading', { level: 1, name: 'A step' }).waitFor();
    await page.getByText(/^Operation 4 of/).waitFor();
    const picture = page.getByRole('slider', { name: 'Operations of the step' });
    await picture.focus();
    await page.keyboard.press('End');
    const count = Number(await picture.getAttribute('aria-valuemax'));
    await page.getByText(`Operation ${count} of ${count}`).waitFor();
    await page.keyboard.press('ArrowLeft');
    await page.getByRole('button', { name: 'Next' }).click();
    await page.getByText(`Operation ${count} of ${count}`).waitFor();
    expect(await picture.getAttribute('aria-valuetext')).toContain('adamw update, update');
    await page.waitForFunction((last) => location.hash.includes(`'selected'%3A${last}`), count - 1);
    const kernel = page.locator('.facts').getByRole('link', { name: 'adamw' });
    expect(await kernel.getAttribute('href')).toBe("#kernels/%7B'kernel'%3A'adamw'%7D");
    await kernel.click();
    await page.getByRole('heading', { level: 1, name: 'Kernels' }).waitFor();
    await expect.poll(() => page.locator('select').first().inputValue(), PATIENCE).toBe('adamw');
  });

  test.runIf(long)('times are measured on demand', PATIENCE, async ({ skip }) => {
    const { page, show } = explorer;
    await show('step', link(nano));
    await page.getByText(/^Operation 4 of/).waitFor();
    const measure = page.getByRole('button', { name: 'Measure the times here' });
    if ((await measure.count()) === 0) skip('the adapter of Chromium has no timestamps');
    await measure.click();
    await page.getByText(/^Measured: the mean/).waitFor();
    await page
      .locator('.glance dd')
      .filter({ hasText: / (ms|µs)$/ })
      .waitFor();
    await page.getByRole('button', { name: 'Measure the times here again' }).click();
    await page.getByRole('button', { name: 'Stop' }).click();
    await measure.waitFor();
  });

  test('a damaged link is told', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('step', link({ ...nano, system: 'pi9' }));
    await page.getByText("There is no system 'pi9'").waitFor();
    await page.getByText(/^Operation \d+ of/).waitFor();
  });
});
