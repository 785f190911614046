import { safeParse } from 'valibot';
import { describe, expect, test } from 'vitest';
import { codeOf } from '../../bench/explorer/attention/code.ts';
import { timeWords } from '../../bench/explorer/attention/numbers.tsx';
import {
  cellOf,
  edgeOf,
  initial,
  makeTable,
  nextCell,
  problemWith,
  type State,
  stateSchema,
  systemTable,
} from '../../bench/explorer/attention/state.ts';
import {
  type Counts,
  comparedCounts,
  counts,
  problemOf,
  reachingGradients,
  visiblePairs,
} from '../../bench/explorer/attention/work.ts';
import * as kernels from '../../kernels/index.ts';
import { systems } from '../../model/systems/index.ts';
import { testDevice } from '../support/devices.ts';
import { inExplorer, PATIENCE, rowsOf } from './explorer.ts';

const of = (system: string): State => ({ ...initial, system, ...systemTable(system) });
const problem = (state: State) => problemOf(state, makeTable(state), null);
const withCell = (state: State, query: number, key: number, cell: State['cells'][number][number]): State => ({
  ...state,
  cells: state.cells.map((row, q) => row.map((own, k) => (q === query && k === key ? cell : own))),
});

describe('the workbench of attention', () => {
  test('every system begins as a table that a link can hold', () => {
    for (const { name } of systems) {
      const { note, ...table } = systemTable(name);
      expect(note).toMatch(/\w\.$/);
      const state = JSON.parse(JSON.stringify({ ...initial, system: name, ...table }));
      expect(safeParse(stateSchema, state), name).toMatchObject({ success: true, output: state });
      for (const cell of table.cells.flat()) expect(cellOf(edgeOf(cell))).toEqual(cell);
    }
  });

  test('its tiles cover the pairs that the mask shows, and partial ones alone hold others', () => {
    const state = withCell(of('knowledge-insulation'), 0, 0, { mask: 'causal', window: 40 });
    const own = problem(state);
    const { length } = own.table.layout;
    const seen = visiblePairs(own, null);
    let covered = 0;
    for (const { query, key, masked } of counts(own).live.forward) {
      let inTile = 0;
      for (let q = query.firstToken; q < query.firstToken + query.rows; q++)
        for (let k = key.firstToken; k < key.firstToken + key.rows; k++) inTile += seen[q * length + k];
      expect(inTile).toBeGreaterThan(0);
      if (!masked) expect(inTile).toBe(query.rows * key.rows);
      covered += inTile;
    }
    expect(covered).toBe(seen.reduce((sum, one) => sum + one, 0));
  });

  test('a stop saves what the library says, and dense attention is dense', () => {
    const { own, withoutStops, dense } = comparedCounts(problem(of('knowledge-insulation')));
    const joint = counts(problem(of('joint-training')));
    expect(withoutStops).toEqual(joint);
    expect(own.live.forward).toEqual(joint.live.forward);
    expect(own.numbers['dK/dV, FLOPs']).toBeLessThan(joint.numbers['dK/dV, FLOPs']);
    expect(dense.numbers['forward, pairs of tokens']).toBe(112 ** 2);
  });

  test('the program that it shows makes the same table', () => {
    const scaled = withCell(of('openvla-oft'), 0, 0, { mask: 'causal', window: 8, keyGradient: 0.25 });
    for (const state of [initial, scaled, of('robovlms-interleaved')]) {
      const statements = codeOf(state)
        .replace(/^import .*\n/, '')
        .replace(/^const output = .*\n/m, '');
      const made = new Function(...Object.keys(kernels), `${statements}; return table;`)(...Object.values(kernels));
      expect(made).toEqual(makeTable(state));
    }
  });

  test('what is no table is told with its reason', () => {
    const [first, ...others] = initial.blocks;
    const told = (blocks: State['blocks']) => problemWith({ ...initial, blocks });
    expect(told([{ ...first, name: 'action' }, ...others])).toMatch("two blocks are named 'action'");
    expect(told([{ ...first, length: 0 }, ...others])).toMatch('1 to 1024 tokens');
    expect(told([{ ...first, length: 1000 }, ...others])).toMatch('1048 tokens together');
    expect(problemWith(withCell(initial, 3, 0, 'causal'))).toMatch('causal is for a block and itself');
    expect(problemWith({ ...initial, heads: 2, kvHeads: 4 })).toMatch('the second divides the first');
  });

  test('a click makes an edge, stops its gradient and opens it; its mask stays', () => {
    expect([nextCell('none'), nextCell('full'), nextCell('insulated')]).toEqual(['full', 'insulated', 'full']);
    const stopped = nextCell('causal');
    expect(stopped).toMatchObject({ mask: 'causal', keyGradient: 0, valueGradient: 0 });
    expect(nextCell(stopped)).toBe('causal');
  });

  test('times have a verdict only where their interval has one', () => {
    const others = [10, 11, 12, 10, 11, 12, 10, 11, 12];
    const times = (factor: number, first: number) => others.map((own, i) => own * (i === 0 ? first : factor));
    expect(timeWords(others, others)).toBe('the same');
    expect(timeWords(times(0.5, 0.75), others)).toBe('this table: 50.0 % less (50.0 % less to 25.0 % less)');
    expect(timeWords(times(0.5, 1.25), others)).toBe('no clear difference (50.0 % less to 25.0 % more)');
  });

  test('the gradient that reaches K and V is bitwise zero where an edge stops it, and nowhere else', async () => {
    const reached = await reachingGradients(await testDevice('normal'), problem(of('ki-continuous-state')));
    const { blocks, cells } = of('ki-continuous-state');
    expect(Object.keys(reached).length).toBeGreaterThan(1);
    for (const [query, row] of Object.entries(reached))
      for (const [key, { key: toKey, value: toValue }] of Object.entries(row)) {
        const [q, k] = [query, key].map((name) => blocks.findIndex((block) => block.name === name));
        const zero = cells[q][k] === 'none' || cells[q][k] === 'insulated';
        expect([query, key, toKey.zero, toValue.zero]).toEqual([query, key, zero, zero]);
        expect(toKey.norm > 0).toBe(!zero);
      }
  });
});

inExplorer('the workbench of attention', (explorer) => {
  const address = () => explorer.page.evaluate(() => location.hash.replace('#attention/', ''));
  /** A state whose gradients wait for a click. */
  const large = encodeURIComponent(JSON.stringify({ ...initial, heads: 8, headDimension: 256 }));
  /** The numbers of this table and of that without stops, by row. */
  const shown = async () => {
    const rows = await rowsOf(explorer.page.getByRole('table', { name: 'Work' }));
    return rows.map(([name, ...cells]) => [name, ...cells.slice(0, 2).map((text) => text.split(/\s/)[0])]);
  };
  const known = (...columns: Counts[]) =>
    Object.keys(columns[0].numbers).map((name) => [
      name,
      ...columns.map(({ numbers }) => numbers[name].toLocaleString('en')),
    ]);

  test(
    'a click on a full edge stops its gradient: its tiles of dK/dV vanish, and so does the gradient',
    PATIENCE,
    async () => {
      const { page, show } = explorer;
      await show('attention');
      await page.getByLabel('Start from').selectOption('joint-training');
      const gradient = page.getByRole('table', { name: 'dV' });
      await gradient.getByTitle(/^action to language: [\d.]+$/).waitFor();
      const before = counts(problem(of('joint-training')));
      expect(await shown()).toEqual(known(before, before));
      await page.getByRole('button', { name: 'action reads language: full' }).click();
      const after = counts(problem(withCell(of('joint-training'), 3, 1, 'insulated')));
      const gone = before.live.dKeyValue.length - after.live.dKeyValue.length;
      expect(gone).toBe(1);
      await page.getByText(`The last change: ${gone} vanished, 0 appeared.`).waitFor();
      expect(await shown()).toEqual(known(after, before));
      await gradient.getByTitle('action to language: all bits are zero, cut by the table').waitFor();
      expect(await gradient.getByTitle(/^action to image: [\d.]+$/).count()).toBe(1);
      await page.getByRole('button', { name: 'action reads language: insulated' }).click();
      await page.getByText(`The last change: 0 vanished, ${gone} appeared.`).waitFor();
    },
  );

  test('the keyboard edits the table, and the link holds it', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('attention', large);
    await page.getByRole('button', { name: 'image reads image' }).focus();
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'target reads language: insulated' }).waitFor();
    await page.getByRole('combobox', { name: 'Mask', exact: true }).selectOption('none');
    await page.getByRole('button', { name: 'target reads language: none' }).press('Enter');
    await page.getByRole('button', { name: 'target reads language: full' }).press('Enter');
    await page.getByLabel('Gradient to keys').fill('0.25');
    await page.getByLabel('Tokens of action').fill('40');
    await expect.poll(address, PATIENCE).toMatch(/40\D/);
    const state = await address();
    await show('attention', state);
    await page.getByRole('button', { name: 'target reads language: full, keys x 0.25, values x 0' }).waitFor();
    expect(await page.getByLabel('Tokens of action').inputValue()).toBe('40');
    await page.getByLabel('Tokens of action').fill('4000');
    await page.getByText("Block 'action' with 4000 tokens").waitFor();
    expect(await address()).toBe(state);
  });

  test('an expression that does not compile is told with its line, and the last good one stays', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('attention', large);
    const mask = page.getByLabel('Mask, a bool');
    await page.getByLabel('Ready-made mask').selectOption('dilated by 2');
    await expect.poll(address, PATIENCE).toContain('(q');
    const work = await shown();
    await mask.fill('q - k <\n  kk');
    await page.getByText('mask, line 2').waitFor();
    expect(await mask.inputValue()).toBe('q - k <\n  kk');
    expect(await shown()).toEqual(work);
    await mask.fill('q / 32 == k / 32');
    await page.getByText('Compiled and tried on this adapter.').waitFor();
    await expect.poll(address, PATIENCE).toContain('q%20%2F%2032');
  });

  test('documents and constants that make no sense are told, and the last good ones stay', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('attention', large);
    const [borders, constants] = [page.getByLabel('Documents begin at tokens'), page.getByLabel('Constants')];
    await borders.fill('20, 70');
    await expect.poll(address, PATIENCE).toContain("'borders':[20,70]".replaceAll(/[:[\]]/g, encodeURIComponent));
    const state = await address();
    const told = page.getByText('Whole numbers from 1 to 111, each above the last, with commas between them');
    for (const text of ['5, abc', '70, 20', '-4, 9999', '1.5', '112']) {
      await borders.fill(text);
      await told.waitFor();
      await borders.fill('20, 70');
      await told.waitFor({ state: 'detached' });
    }
    await constants.fill('x');
    await page.getByText('Numbers, with commas between them; the last good ones stay in use.').waitFor();
    expect(await address()).toBe(state);
  });

  test('a damaged link says so, and shows the usual table', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('attention', "{'blocks':[]}");
    await page.getByText('The link to this page is damaged').waitFor();
    await page.getByRole('button', { name: 'action reads language: insulated' }).waitFor();
    await show('step', encodeURIComponent(JSON.stringify({ system: 'nope' })));
    await page.getByText("There is no system 'nope': the page shows its usual state.").waitFor();
  });
});
