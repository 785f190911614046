import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runFolder } from '../../cli/run-folder.ts';
import { writeFileSafely } from '../../engine/files/files.ts';
import { long } from '../support/long.ts';
import type { Answer, Wish } from './holder.ts';

const HOLDERS = 3;
const ROUNDS = long ? 2000 : 20;
let folder = '';
let holders: ChildProcess[] = [];
let runs = 0;
const newPath = () => join(folder, `run${runs++}`);

const startHolder = () =>
  fork(fileURLToPath(new URL('holder.ts', import.meta.url)), [], {
    execArgv: ['--import', import.meta.resolve('tsx')],
  });
async function ask(holder: ChildProcess, wish: Wish): Promise<Answer> {
  holder.send(wish);
  return (await once(holder, 'message'))[0];
}
const take = (path: string) => runFolder({ out: path, usual: path, overwrite: true }, () => {});

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-lock-'));
  holders = Array.from({ length: HOLDERS }, startHolder);
  await Promise.all(holders.map((holder) => ask(holder, 'leave')));
}, 60_000);
afterAll(async () => {
  for (const holder of holders) holder.kill();
  await rm(folder, { recursive: true, force: true });
});

describe('the folder of a run', () => {
  test('is held by one of several that begin at the same instant, with or without a lock that was left', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const path = newPath();
      if (round % 2 === 1) {
        mkdirSync(path);
        // A process that is gone, or another program that has its number now.
        writeFileSync(join(path, '.running'), `${round % 4 === 1 ? 2 ** 22 - 1 : process.pid}`);
      }
      const at = Date.now() + 5;
      const answers = await Promise.all(holders.map((holder) => ask(holder, { take: path, at })));
      const holding = answers.flatMap((answer, i) => (typeof answer === 'object' && 'path' in answer ? [i] : []));
      expect(holding, `round ${round}: ${JSON.stringify(answers)}`).toHaveLength(1);
      for (const answer of answers)
        if (typeof answer === 'object' && 'refused' in answer)
          expect(answer.refused).toMatch(/another run (\(process \d+\) )?is writing there; wait/);
      await Promise.all(holders.map((holder) => ask(holder, 'leave')));
    }
  }, 600_000);

  test('is the same one through a link, and free in a copy and after the end of its process, however that came', async () => {
    const path = newPath();
    const holder = startHolder();
    expect(await ask(holder, { take: path, at: 0 })).toEqual({ path });
    const link = newPath();
    symlinkSync(path, link, 'junction');
    await expect(take(link)).rejects.toThrow(`another run (process ${holder.pid}) is writing there`);
    const copy = newPath();
    await cp(path, copy, { recursive: true });
    await (await take(copy)).leave();
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    expect(readdirSync(path)).toEqual(['.running']);
    await (await take(link)).leave();
    expect(readdirSync(path)).toEqual([]);
  }, 60_000);

  test("is rid of what processes left that were killed, and of nothing that is written now or is not a run's", async () => {
    const path = newPath();
    mkdirSync(join(path, 'episodes'), { recursive: true });
    const holder = startHolder();
    const [killed, living] = [join(path, 'checkpoint.safetensors'), join(path, 'gradients.html')];
    expect(await ask(holder, { write: killed })).toBe('writing');
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    expect(await ask(holders[0], { write: living })).toBe('writing');
    const [left] = readdirSync(path).filter((name) => name.startsWith('checkpoint'));
    const ofLiving = `report.html.${process.pid}-0.part`; // by number: it is of a process of the past
    for (const name of ['notes.part', ofLiving, 'episodes/success-1.html.7-1.part'])
      writeFileSync(join(path, name), '');
    const { leave } = await take(path);
    const names = readdirSync(path);
    expect(left).toMatch(/\.\d+-\d+\.part$/);
    expect(names.map((name) => name.replace(/\.\d+-\d+\./, '.NUMBERS.'))).toEqual([
      '.running',
      'episodes',
      'gradients.html.NUMBERS.part',
      'notes.part',
    ]);
    expect(readdirSync(join(path, 'episodes'))).toEqual([]);
    await leave();
  }, 60_000);
});

test('a file is written whole beside one that a process of the same number left', async () => {
  const path = newPath();
  mkdirSync(path);
  const file = join(path, 'summary.json');
  // The numbers that the next files of this process would get.
  for (let number = 0; number < 50; number++) writeFileSync(`${file}.${process.pid}-${number}.part`, 'left');
  await writeFileSafely(file, ['{}']);
  expect(readdirSync(path).filter((name) => name.endsWith('.part'))).toHaveLength(50);
  expect(existsSync(file)).toBe(true);
});
