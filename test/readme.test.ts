import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { commands } from '../cli/commands.ts';
import { readOptions } from '../cli/options.ts';

const root = fileURLToPath(new URL('../', import.meta.url));
const text = (path: string) => readFileSync(join(root, path), 'utf8');
const launcher = join(root, 'cli/setup/launch.mjs');
const data = join(root, '../shared/data');
const readme = text('README.md');
/** The commands as printed, without their comments. */
const printed = [...readme.matchAll(/^npx insula (.*?) +#/gm)].map((match) => match[1]);

/** The words of a command; quotes hold some together. */
const wordsOf = (line: string): string[] => (line.match(/"[^"]*"|\S+/g) ?? []).map((word) => word.replaceAll('"', ''));

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-readme-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Runs a file of the repository, or `insula`, in the test's own folder. */
function run(...words: string[]): Promise<{ status: number | null; output: string; errors: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [launcher, ...words], { cwd: folder });
    let [output, errors] = ['', ''];
    child.stdout.on('data', (piece) => {
      output += piece;
    });
    child.stderr.on('data', (piece) => {
      errors += piece;
    });
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, output, errors }));
  });
}

async function expectToRun(command: string, output: RegExp) {
  const result = await run('cli/main.ts', ...wordsOf(command));
  expect(result.status, result.errors).toBe(0);
  expect(result.output).toMatch(output);
}

test('the README is one page, and its commands are commands with their own options', async () => {
  expect(readme.split('\n').length).toBeLessThanOrEqual(150);
  expect(printed.length).toBeGreaterThan(8);
  for (const line of printed) {
    const words = wordsOf(line);
    const name = commands[words.slice(0, 2).join(' ')] ? words.slice(0, 2).join(' ') : words[0];
    expect(Object.keys(commands), line).toContain(name);
    const command = await commands[name].load();
    expect(() => readOptions(name, command, words.slice(name.split(' ').length)), line).not.toThrow();
  }
});

/** Lines of the README that take seconds, and the beginning or a part of what they print. */
const short: Readonly<Record<string, RegExp>> = {
  devices: /features: /,
  'systems pi0-small': /dispatches/,
  'act --checkpoint tiny --ask "point to the red cube"': /<loc\d{4}><loc\d{4}>/,
  'inspect --gradients --gates 1': /cut by the table/,
};

test.each(Object.entries(short))('insula %s', async (command, output) => {
  expect(printed).toContain(command);
  await expectToRun(command, output);
});

const skipped = existsSync(data) ? '' : ' (skipped: ../shared/data is not there)';
describe.skipIf(skipped !== '')(`commands of the README on data of one's own${skipped}`, () => {
  test('train, act, evaluate, convert, tokenize', async () => {
    await symlink(data, join(folder, 'FOLDER'));
    const begins = [
      'train --data',
      'act --checkpoint FILE',
      'evaluate --checkpoint FILE --data',
      'convert',
      'tokenize',
    ];
    const [train, act, evaluate, convert, tokenize] = begins.map(
      (begin) => printed.find((line) => line.startsWith(begin))!,
    );
    await expectToRun(train.replace('20', '2'), /^trained 2 steps .*\n(.*\n)*checkpoint: /);
    await symlink(
      join(folder, '.insula/bridge-knowledge-insulation-robot-only-tiny/checkpoint.safetensors'),
      join(folder, 'FILE'),
    );
    await expectToRun(act, /^episode .*step 2: .*\n(.*\n)*latency on /);
    await expectToRun(evaluate, /^open loop over \d+ held-out observations/);
    await expectToRun(convert, /^\.insula\/lerobot: LeRobot 3\.0, 25 episodes, 250 steps at 5 Hz of "bridge"/);
    await expectToRun(tokenize, /FAST, scale 10 /);
    await expectExample('model/data/index.ts', /25 episodes, 250 steps at 5 Hz/);
  });
});

/** The examples in Markdown, or in the comment at the head of a file. */
function examplesIn(path: string): string[] {
  const plain = path.endsWith('.md') ? text(path) : text(path).replace(/^ \* ?/gm, '');
  return [...plain.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map((match) => match[1]);
}

async function expectExample(path: string, output: RegExp) {
  const [example] = examplesIn(path);
  const file = join(folder, `${path.replaceAll(/\W/g, '-')}.mts`);
  // The repository has no dist/, which the names of the package stand for.
  const own = example.replaceAll(/from 'insula\/(\w+)'/g, `from '${root}$1/index.ts'`);
  await writeFile(file, own.replaceAll("from './", `from '${root}`));
  const result = await run(file);
  expect(result.errors).toBe('');
  expect(result.status).toBe(0);
  expect(result.output).toMatch(output);
}

test.each([
  ['README.md', /Float32Array\(4\) \[ 0, 0, 0, 0 \]/],
  ['kernels/index.ts', /Float32Array\(1\) \[[\s\S]*\d+ \[ \d+/],
  ['model/index.ts', /losses Float32Array\(1\) \[[\s\S]*224 normalised numbers/],
  ['tokenizers/index.ts', /<loc0102><loc0205> cup/],
])('the example in %s runs', expectExample);
