import { expect, test } from 'vitest';
import { packEdit } from '../../bench/explorer/kernels/edit.ts';
import { checkOp, timeOp } from '../../bench/explorer/kernels/trial.ts';
import { digits } from '../../bench/measure/table.ts';
import { loadedKernels } from '../../engine/index.ts';
import { testDevice } from '../support/devices.ts';
import { inExplorer, PATIENCE, rowsOf } from './explorer.ts';

const { source } = loadedKernels.get('rms-norm')!;
const agrees = 'The output and every gradient agree with float64.';

inExplorer('kernels in the explorer', (explorer) => {
  const table = (title: RegExp) => rowsOf(explorer.page.getByRole('figure', { name: title }));
  const checks = async () => {
    const rows = await table(/^Beside float64/);
    return rows.map(([tensor, passed]) => `${tensor.split('\n')[0]}: ${passed}`);
  };
  const view = (side: string) => explorer.page.getByLabel(`rms-norm.wgsl, ${side} view`);
  /** Types before the end of the first line that holds `text`, in the view of backward. */
  const typeInto = async (text: string, keys: readonly string[]) => {
    await view('right').getByText(text).first().click();
    await explorer.page.keyboard.press('End');
    for (const key of keys) await explorer.page.keyboard.press(key);
  };

  test(
    'the shipped RMSNorm shows its formulas and its source; its numbers are those of the library',
    PATIENCE,
    async () => {
      const { page, show } = explorer;
      await show('kernels');
      await page.locator('math').first().waitFor();
      await view('left').getByText('fn forward(').waitFor();
      await view('right').getByText('fn backward(').waitFor();
      await page.getByRole('button', { name: 'Check and time it' }).click();
      await page.getByText(agrees).waitFor();
      const device = await testDevice('normal');
      const { signal } = new AbortController();
      const checked = await checkOp(device, 'rms-norm', 'rmsNorm', null, signal);
      const allowed = await table(/^Beside float64/);
      expect(allowed.map((cells) => cells.at(-1))).toEqual(
        checked.map(({ worst }) => worst.tolerance.toExponential(1)),
      );
      const { name, timings } = await timeOp(device, 'rms-norm', 'rmsNorm', null, signal);
      await page.getByText(`${name}: medians of rounds`).waitFor();
      const times = await table(/^Times/);
      expect(times.map((cells) => [cells[0], cells[4]])).toEqual(
        timings.map(({ direction, flops, bytes }) => [direction, digits(flops / bytes)]),
      );
    },
  );

  test('a syntax error is told by line and reason; the last results stay, and so does the text', PATIENCE, async () => {
    const { page } = explorer;
    await typeInto('dw += gradient', ['ArrowLeft', 'q']);
    await page
      .getByText(
        /^Line 110, column 32: unresolved value 'rq'\. The results below belong to an earlier text that compiled\./,
      )
      .waitFor();
    expect(await page.locator('.cm-lint-marker-error').count()).toBe(1);
    expect(await checks()).toEqual(['output: yes', 'gradient of x: yes', 'gradient of weight: yes']);
    await view('right').getByText('value * rq;').waitFor();
    expect(new URL(page.url()).hash).toContain("'edit'");
  });

  test(
    'a wrong factor fails for the gradient that it is in alone, until the shipped source is restored',
    PATIENCE,
    async () => {
      const { page } = explorer;
      await typeInto('dw += gradient', ['ArrowLeft', 'Backspace', ...' * 1.001']);
      await page.getByText('Wrong: gradient of weight.').waitFor();
      expect(await checks()).toEqual(['output: yes', 'gradient of x: yes', 'gradient of weight: no']);
      await page.getByText('the edited kernel and the shipped one in turns').waitFor();
      await page.getByRole('button', { name: 'Restore the shipped source' }).click();
      await page.getByText(agrees).waitFor();
      await view('right').getByText('gradient * value * r;').waitFor();
      expect(new URL(page.url()).hash).not.toContain("'edit'");
    },
  );

  test('a link holds the edit; one that is damaged, or of another kernel, is told', PATIENCE, async () => {
    const { page, show } = explorer;
    const edit = packEdit(source, source.replace('+ shape.epsilon', '+ 2.0 * shape.epsilon'));
    await show('kernels', `{'kernel':'rms-norm','edit':'${edit}'}`);
    await page.getByText('Wrong: output').waitFor();
    await show('kernels', `{'kernel':'softmax','edit':'${edit}'}`);
    await page.getByText('an edit of another version of this kernel').waitFor();
    await show('kernels', "{'kernel':'rms-norms'}");
    await page.getByText("There is no kernel 'rms-norms': did you mean rms-norm?.").waitFor();
  });
});
