import { describe, expect, test } from 'vitest';
import { sections } from '../../bench/explorer/sections.ts';
import { chromiumMissing, chromiumPath } from './chromium.ts';
import { inExplorer, openExplorer, PATIENCE } from './explorer.ts';

inExplorer("the explorer's frame", (explorer) => {
  test('every section shows by its link, and by the menu with the keyboard', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('');
    await page.getByText(/^Computed on /).waitFor();
    for (const { id, title } of sections) {
      const link = page.getByRole('link', { name: title, exact: true });
      await link.focus();
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { level: 1, name: title }).waitFor();
      expect(new URL(page.url()).hash).toBe(`#${id}`);
      expect(await link.getAttribute('aria-current')).toBe('page');
    }
  });

  test('a section that was left is as it was, and so is its address', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('tokens');
    await page.getByRole('button', { name: 'noise' }).click();
    await page.waitForFunction(() => location.hash.startsWith('#tokens/'));
    const address = page.url();
    await page.getByRole('link', { name: 'Kernels', exact: true }).click();
    await page.getByRole('heading', { level: 1, name: 'Kernels' }).waitFor();
    await page.getByRole('link', { name: 'Actions as tokens' }).click();
    await page.waitForURL(address);
  });

  test('a section that is not there is told in one sentence', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('kernel');
    await page.getByText("There is no section 'kernel': this is the first.").waitFor();
  });

  test('colours follow the button', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('');
    const colour = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.getByRole('button', { name: 'Colours: auto' }).click();
    await page.locator(':root[data-theme=light]').waitFor();
    const light = await colour();
    await page.getByRole('button', { name: 'Colours: light' }).click();
    await page.locator(':root[data-theme=dark]').waitFor();
    expect(await colour()).not.toBe(light);
  });

  test('an adapter that is lost is told, and opens again', PATIENCE, async () => {
    const { page, show } = explorer;
    await show('');
    await page.getByText(/^Computed on /).waitFor();
    await page.evaluate('loseDevice()');
    await page.getByText(/^The adapter was lost/).waitFor();
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.getByText(/^Computed on /).waitFor();
  });
});

describe.skipIf(!chromiumPath)(`the explorer without WebGPU${chromiumMissing}`, () => {
  test('one sentence says what is missing', PATIENCE, async () => {
    const { page, show, close } = await openExplorer({ webgpu: false });
    try {
      await show('attention');
      await page.getByText('This browser has no WebGPU').waitFor();
    } finally {
      await close();
    }
  });
});
