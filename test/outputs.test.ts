import { mkdir, mkdtemp, readdir, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { outputFile, outputFolder, text } from '../cli/options.ts';
import { expectNoFiles, expectWritable, makeFolder, takeNewFolder } from '../cli/outputs.ts';

let folder = '';
const at = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-outputs-'));
  await mkdir(at('empty'));
  await mkdir(at('full'));
  await writeFile(at('full/notes.txt'), '');
  await writeFile(at('file'), '');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const options = { csv: outputFile('rows'), out: outputFolder('a data set'), name: text('a name') };

test.each([{ csv: 'rows.csv' }, { csv: 'file' }, { out: 'empty' }, { out: 'new/below/new' }, { name: 'file/no path' }])(
  'what can be written is taken, and nothing is made: %o',
  async (values) => {
    const paths = Object.fromEntries(Object.entries(values).map(([name, path]) => [name, at(path)]));
    await expectWritable(options, paths);
    await expect(expectNoFiles('out', at('new'))).resolves.toBeUndefined();
  },
);

test.each([
  ['csv', 'empty', 'this is a folder; name a file'],
  ['csv', 'nowhere/rows.csv', 'cannot write it: no such file or folder'],
  ['out', 'file', 'this is a file; name a folder'],
])('--%s %s is refused before the work', async (name, path, message) => {
  await expect(expectWritable(options, { [name]: at(path) })).rejects.toThrow(`--${name} ${at(path)}: ${message}`);
});

test.each([
  ['csv', 'file/rows.csv'],
  ['out', 'file/below/new'],
])('--%s %s lies below a file', async (name, path) => {
  await expect(expectWritable(options, { [name]: at(path) })).rejects.toThrow(`${at('file')} is a file, not a folder`);
});

test('a folder with files is no place for a data set', async () => {
  await expectNoFiles('out', at('empty'));
  await expect(expectNoFiles('out', at('full'), ', or else')).rejects.toThrow(
    `--out ${at('full')}: the folder holds "notes.txt"; choose an empty or a new folder, or else`,
  );
});

test.each([false, true])(
  'a folder that another process removes before it is locked is made again; there before: %o',
  async (before) => {
    const path = at('removed');
    if (before) await mkdir(path);
    const made = await makeFolder('out', path);
    await rmdir(path);
    const leave = await made.lock(() => {});
    expect(await readdir(path)).toEqual(['.running']);
    await leave();
    await expect(readdir(path)).rejects.toThrow('ENOENT');
  },
);

test('a new folder has one writer at a time, and goes with the command that wrote nothing there', async () => {
  const before = await readdir(folder);
  const take = (path: string) => takeNewFolder('record', at(path), () => {});
  const leave = await take('above/new');
  await expect(take('above/new')).rejects.toThrow(
    `${at('above/new')}: another run (process ${process.pid}) is writing there; wait until it ends, or choose another folder with --record`,
  );
  await leave();
  await expect(take('full')).rejects.toThrow(`--record ${at('full')}: the folder holds "notes.txt"`);
  await expect(take('file')).rejects.toThrow(`--record ${at('file')}: cannot make this folder: a file of this name`);
  expect(await readdir(folder)).toEqual(before);
  expect(await readdir(at('full'))).toEqual(['notes.txt']);
});
