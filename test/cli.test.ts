import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writeSafetensors } from '../engine/index.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const shared = join(root, '../shared/data');
const haveShared = existsSync(shared);
let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-cli-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Result {
  status: number | null;
  output: string;
  /** Standard error without progress of the data and Dawn's own warnings. */
  errors: string[];
}

/** Runs `insula ...` in the test's own folder. */
function insula(args: string[], environment: Record<string, string> = {}): Promise<Result> {
  const launcher = join(root, 'engine/setup/launch.mjs');
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [launcher, join(root, 'cli.ts'), ...args], {
      cwd: folder,
      env: { ...process.env, ...environment },
    });
    const read = { output: '', errors: '' };
    child.stdout.on('data', (data) => {
      read.output += data;
    });
    child.stderr.on('data', (data) => {
      read.errors += data;
    });
    child.on('close', (status) => {
      const errors = read.errors.split('\n').filter((line) => line !== '' && !line.startsWith('Warning: max'));
      resolve({ status, output: read.output, errors });
    });
  });
}

describe('insula', () => {
  test.each([
    [['fly'], "no command 'fly'; there are devices, train, act, evaluate"],
    [['train', '--sistem', 'pi0'], "Unknown option '--sistem'"],
    [['train', '--steps', 'many'], '--steps many: expected a whole number'],
    [['train', '--system', 'pi9'], 'no system is named "pi9"; there are knowledge-insulation'],
    [['train', '--preset', 'huge'], 'no preset is named "huge"; there are tiny, small'],
    [['train', '--data', 'nowhere'], '--data nowhere: which set?'],
    [['train', '--data', 'nowhere', '--dataset', 'bridge'], 'nowhere'],
    [['train', '--resume'], 'checkpoint.safetensors'],
    [['act'], 'which policy?'],
    [['act', '--checkpoint', 'missing.safetensors'], 'missing.safetensors'],
  ])('%j is one clear line and a status other than 0', async (args, words) => {
    const { status, output, errors } = await insula(args);
    expect(errors, errors.join('\n')).toHaveLength(1);
    expect(errors[0]).toMatch(/^insula/);
    expect(errors[0]).toContain(words);
    expect(status).toBe(1);
    expect(output).toBe('');
  });

  test('files that are no checkpoints are named', async () => {
    await writeFile(join(folder, 'text.safetensors'), 'this is no checkpoint, but a line of text');
    await writeSafetensors(join(folder, 'other.safetensors'), [
      { name: 'x', dtype: 'F32', shape: [2], data: new Float32Array(2) },
    ]);
    const whole = await readFile(join(folder, 'other.safetensors'));
    await writeFile(join(folder, 'cut.safetensors'), whole.subarray(0, whole.length - 4));
    for (const name of ['text', 'other', 'cut']) {
      const { status, errors } = await insula(['evaluate', '--checkpoint', `${name}.safetensors`]);
      expect(errors, name).toHaveLength(1);
      expect(errors[0]).toContain(`${name}.safetensors`);
      expect(status).toBe(1);
    }
  });

  test('help, and no command at all', async () => {
    const help = await insula(['train', '--help']);
    expect(help.status).toBe(0);
    expect(help.output).toContain('--resume');
    const none = await insula([]);
    expect(none.status).toBe(2);
    expect(none.output).toContain('devices');
  });

  test('devices --json prints one JSON object', async () => {
    const { output } = await insula(['devices', '--json']);
    const { adapters } = JSON.parse(output);
    expect(adapters.some((adapter: { opens: boolean }) => adapter.opens)).toBe(true);
    expect(output.trim().split('\n')).toHaveLength(1);
  });
});

describe.skipIf(!haveShared)(
  `insula on real episodes${haveShared ? '' : ' (skipped: ../shared/data is not there)'}`,
  () => {
    test('trains on bridge, acts, and refuses what does not fit', async () => {
      const data = ['--data', shared, '--dataset', 'bridge'];
      const trained = await insula(['train', ...data, '--steps', '2', '--out', 'run', '--json']);
      expect(trained.status, trained.errors.join('\n')).toBe(0);
      const summary = JSON.parse(trained.output);
      expect(summary.step).toBe(2);
      expect((await readdir(join(folder, 'run'))).sort()).toEqual([
        'checkpoint.safetensors',
        'report.html',
        'summary.json',
      ]);
      const acted = await insula([
        'act',
        '--checkpoint',
        'run/checkpoint.safetensors',
        '--data',
        shared,
        '--episode',
        '1',
        '--json',
      ]);
      const { predicted, demonstrated, latency } = JSON.parse(acted.output);
      expect(predicted).toHaveLength(5);
      expect(demonstrated[0]).toHaveLength(7);
      expect(latency.map(({ part }: { part: string }) => part)).toContain('prefix');
      const refused = [
        [
          ['act', '--checkpoint', 'run/checkpoint.safetensors', '--data', shared, '--episode', 'none'],
          '--episode "none"',
        ],
        [['act', '--checkpoint', 'run/checkpoint.safetensors'], 'was trained on "bridge"'],
        [['train', ...data, '--resume', '--out', 'run', '--seed', '5'], '--seed 5'],
        [['train', ...data, '--horizon', '11'], 'horizon 11 is longer than the longest episode'],
        [['train', '--data', shared, '--dataset', 'bridges'], 'bridges'],
      ] as const;
      for (const [args, words] of refused) {
        const { status, errors } = await insula([...args]);
        expect(status, errors.join('\n')).toBe(1);
        expect(errors.at(-1)).toContain(words);
      }
    });
  },
);
