import { expect, test } from 'vitest';
import { linkTo } from '../../bench/explorer/link.ts';
import { chunkOf, presets, shape, valuesOf } from '../../bench/explorer/tokens/chunks.ts';
import { spansAfter } from '../../bench/explorer/tokens/spelling.ts';
import { errorOf, fitted, idsWithout, initial, type TokensState } from '../../bench/explorer/tokens/state.ts';
import { digits } from '../../bench/measure/table.ts';
import { BinActionTokenizer, StringActionTokenizer } from '../../tokenizers/index.ts';
import { inExplorer, PATIENCE, rowsOf } from './explorer.ts';

const stateOf = (state: TokensState) => linkTo('tokens', state).replace('#tokens/', '');

test('the string after all merges is the ids, after none the symbols', () => {
  const explanation = fitted(initial).explain(chunkOf(valuesOf(presets.sine)));
  const { symbols, merges, ids, lengths } = explanation;
  expect(spansAfter(explanation, 0).map(({ id }) => id)).toEqual(Array.from(symbols));
  const all = spansAfter(explanation, merges.length);
  expect(all.map(({ id }) => id)).toEqual(Array.from(ids));
  expect(all.map(({ length }) => length)).toEqual(lengths);
});

inExplorer("the explorer's page of action tokens", (explorer) => {
  const idsShown = (kind: string) => explorer.page.getByLabel(`Ids of ${kind}`, { exact: true }).inputValue();
  /** The state in the page's address, once it is another than before. */
  const stateShown = async (before = ''): Promise<TokensState> => {
    await explorer.page.waitForFunction((old) => location.hash.includes('/') && location.hash !== old, before);
    const text = decodeURIComponent(new URL(explorer.page.url()).hash.replace('#tokens/', '').replaceAll("'", '%22'));
    return JSON.parse(text);
  };

  test('ids and errors of a linked chunk are those of the library', PATIENCE, async () => {
    const { page, show } = explorer;
    const state: TokensState = {
      ...initial,
      chunk: valuesOf(presets.noise),
      scale: 7,
      vocabulary: 512,
      bins: 32,
      decimals: 1,
    };
    for (const own of [initial, state]) {
      await show('tokens', own === initial ? undefined : stateOf(own));
      const chunk = chunkOf(own.chunk);
      const tokenizers = {
        bins: new BinActionTokenizer({ bins: own.bins }),
        FAST: fitted(own),
        string: new StringActionTokenizer({ decimals: own.decimals }),
      };
      for (const [kind, tokenizer] of Object.entries(tokenizers)) {
        const ids = tokenizer.encode(chunk);
        await page.getByRole('combobox', { name: 'Ids of' }).selectOption(kind);
        await page.getByLabel(`Ids of ${kind}`, { exact: true }).waitFor();
        expect(await idsShown(kind)).toBe(ids.join(' '));
        const { largest, rootMeanSquare } = errorOf(tokenizer, ids, chunk);
        const rows = await rowsOf(page.getByRole('figure', { name: /^What the tokens cost/ }));
        const row = rows.find(([name]) => name === kind)!;
        expect([row[1], row[3], row[4]]).toEqual([String(ids.length), digits(largest), digits(rootMeanSquare)]);
      }
    }
  });

  test('a chunk is drawn with the pointer and with keys, and its link brings it back', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('tokens');
    const plot = page.getByRole('slider', { name: /^Dimension 0/ });
    const box = (await plot.boundingBox())!;
    await page.mouse.move(box.x + 0.1 * box.width, box.y + 0.2 * box.height);
    await page.mouse.down();
    await page.mouse.move(box.x + 0.95 * box.width, box.y + 0.6 * box.height, { steps: 4 });
    await page.mouse.up();
    const drawn = await stateShown();
    const column = drawn.chunk.filter((_, i) => i % shape.dimension === 0);
    expect(column[1]).toBeGreaterThan(0.5);
    expect(column.at(-2)).toBeLessThan(0);
    expect(drawn.chunk[1]).toBe(initial.chunk[1]);
    await plot.focus();
    const before = new URL(page.url()).hash;
    for (const key of ['Home', 'ArrowRight', 'ArrowUp']) await page.keyboard.press(key);
    const raised = await stateShown(before);
    expect(raised.chunk[shape.dimension]).toBeCloseTo(Math.min(1, column[1] + 0.05), 6);
    const ids = fitted(initial).encode(chunkOf(raised.chunk)).join(' ');
    expect(await idsShown('FAST')).toBe(ids);
    await show('tokens', stateOf(raised));
    await plot.waitFor();
    expect(await idsShown('FAST')).toBe(ids);
  });

  test('a token says its coefficients, and the error without it', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('tokens');
    const tokenizer = fitted(initial);
    const chunk = chunkOf(initial.chunk);
    const explanation = tokenizer.explain(chunk);
    const [, token] = spansAfter(explanation, explanation.merges.length);
    const { dimension } = shape;
    await page.getByRole('listitem').getByRole('button').nth(1).click();
    const first = `${explanation.quantised[token.at]} at dimension ${token.at % dimension}, frequency ${Math.floor(token.at / dimension)}`;
    const errors = [idsWithout(tokenizer, chunk, token), explanation.ids].map((ids) =>
      digits(errorOf(tokenizer, ids, chunk).largest),
    );
    await page
      .getByText(`Token 1 with id ${token.id} stands for ${first}`)
      .filter({ hasText: `the largest error is ${errors[0]} in place of ${errors[1]}.` })
      .waitFor();
  });

  test(
    'ids that no chunk has, a fit that fails and a damaged link are told, and what was good stays',
    PATIENCE,
    async () => {
      const { page, show } = explorer;
      await show('tokens');
      const lines = () => page.locator('polyline').evaluateAll((all) => all.map((own) => own.getAttribute('points')));
      const field = page.getByLabel('Ids of FAST', { exact: true });
      await field.waitFor();
      const good = await lines();
      await field.fill('103 9999');
      await page
        .getByText('FastTokenizer.decode: id 9999 at position 1 is unknown; ids are 0 to 255. The plot keeps')
        .waitFor();
      expect(await lines()).toEqual(good);
      await page.getByRole('button', { name: 'Back to the ids of the chunk' }).click();
      await page.getByText('Change an id').waitFor();
      await page.getByLabel(/^FAST scale/).fill('40');
      await page.getByText('lower the scale or allow a larger vocabulary').waitFor();
      expect(await lines()).toEqual(good);
      await show('tokens', 'nonsense');
      await page.getByText('The link to this page is damaged').waitFor();
      await field.waitFor();
    },
  );
});
