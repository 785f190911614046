import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { benchFirstDay, firstDay, outcomeLines } from '../../cli/bench-first-day.ts';
import { runCommand } from '../support/run-command.ts';

test('parts run one after the other; one that fails or takes too long does not stop the next', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'insula-first-day-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const program = [
    '-e',
    'console.log(process.argv.slice(1).join()); setTimeout(process.exit, ...process.argv.slice(2))',
  ];
  const parts = [
    { name: 'long', seconds: 1, words: ['a', '60000', '0'] },
    { name: 'failing', seconds: 60, words: ['b', '0', '3'] },
    { name: 'good', seconds: 60, words: [`${folder}/c`, '0', '0'] },
  ];
  const seen: string[] = [];
  const outcomes = await firstDay(
    { folder, scratch: '/scratch', minutes: 1 },
    (name) => seen.push(name),
    parts,
    program,
  );
  expect(seen).toEqual(['long', 'failing', 'good']);
  expect(outcomes.map(({ outcome }) => outcome)).toEqual([
    'stopped at its limit of 0 s',
    'failed with status 3',
    'passed',
  ]);
  expect(await readFile(join(folder, 'long.txt'), 'utf8')).toBe('a,60000,0\n');
  expect(await readFile(join(folder, 'good.txt'), 'utf8')).toBe('./c,0,0\n');
  expect(JSON.parse(await readFile(join(folder, 'parts.json'), 'utf8'))).toEqual(outcomes);
  expect(outcomeLines(outcomes, folder)[2]).toMatch(/^ {2}failing +0 +failed with status 3$/);
  await expect(runCommand(benchFirstDay, {})).rejects.toThrow('name a folder for the results with --out FOLDER');
  await expect(runCommand(benchFirstDay, { out: folder })).rejects.toThrow('choose an empty or a new folder');
});
