import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { commandLine, refuseOptionsOfNpm } from '../cli/command-line.ts';
import { Progress, progressLine } from '../cli/progress.ts';
import { actLines, trainLines } from '../cli/text.ts';
import type { TrainSummary } from '../cli/training-summary.ts';
import { openCheckpoint } from '../model/training/checkpoint.ts';
import { ratiosToBaselines } from '../model/training/history.ts';
import { runSettings } from '../model/training/run-settings.ts';
import { writeSmallSet } from './data/small-set.ts';
import { demoReport } from './support/demo-report.ts';

const launcher = fileURLToPath(new URL('../cli/setup/launch.mjs', import.meta.url));
const program = fileURLToPath(new URL('../cli/main.ts', import.meta.url));
const commandLines = fileURLToPath(new URL('./support/command-lines.ts', import.meta.url));
let folder = '';

interface Result {
  status: number | null;
  output: string;
  /** Lines of standard error without Dawn's own. */
  errors: string[];
}

interface Settings {
  environment?: Record<string, string>;
  /** Called with each piece of standard error. */
  onErrors?: (text: string, child: ChildProcess) => void;
  /** A TypeScript file to run; default: `insula`. */
  file?: string;
}

const linesOf = (errors: string) => errors.split('\n').filter((line) => !/^$|^Warning: |^ +at /.test(line));

/** Runs `insula ...` in the test's own folder. */
function insula(args: string[], { environment = {}, onErrors, file = program }: Settings = {}): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [launcher, file, ...args], {
      cwd: folder,
      env: { ...process.env, ...environment },
    });
    const read = { output: '', errors: '' };
    child.stdout.on('data', (data) => {
      read.output += data;
    });
    child.stderr.on('data', (data) => {
      read.errors += data;
      onErrors?.(String(data), child);
    });
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, output: read.output, errors: linesOf(read.errors) }));
  });
}

/** The same for several command lines, of which one process runs one after the other. */
async function insulaEach(lines: readonly string[][]): Promise<Result[]> {
  const { output, errors } = await insula([JSON.stringify(lines)], { file: commandLines });
  expect(errors).toEqual([]);
  const results: { status: number; output: string; errors: string }[] = JSON.parse(output);
  return results.map((result) => ({ ...result, errors: linesOf(result.errors) }));
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-cli-'));
  await writeSmallSet(join(folder, 'data'));
  await writeFile(join(folder, 'empty.mts'), 'export const nothing = {};');
  await writeFile(
    join(folder, 'twice.mts'),
    `export { pi0 } from ${JSON.stringify(new URL('../model/systems/pi0.ts', import.meta.url).href)};`,
  );
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('insula', () => {
  test('what is typed wrong is one clear line and a status other than 0', async () => {
    const missing = { VK_ICD_FILENAMES: join(folder, 'no driver') };
    const data = ['--data', 'data', '--dataset', 'made'];
    const noAdapter = "insula: no WebGPU adapter with 'none' in its name";
    const inOne: [string[], string][] = [
      [['fly'], "insula: no command 'fly'; there are devices, train, pretrain, act, evaluate"],
      [['trian'], "insula: no command 'trian'; did you mean train?"],
      [['help', 'trian'], "insula: no command 'trian'; did you mean train?"],
      [['help', 'tokenize', 'fti'], "insula: no command 'tokenize fti'; did you mean tokenize fit?"],
      [['toString'], "insula: no command 'toString'; there are devices, train"],
      [['tokenize'], "insula: no command 'tokenize'; there are tokenize report, tokenize fit, tokenize encode"],
      [['tokenize', 'fti'], "insula: no command 'tokenize fti'; did you mean tokenize fit?"],
      [['bench', 'warp'], "insula: no command 'bench warp'; there are bench attention, bench kernels"],
      [['bench'], 'insula: bench: --tune or --print; or bench attention, data'],
      [
        ['train', '--sistem', 'pi0'],
        'insula: train: there is no option --sistem; did you mean --system? See insula train --help',
      ],
      [['train', 'pi0'], 'insula: train: "pi0" belongs to no option; see insula train --help'],
      [['train', '--steps', '-1'], 'insula: train: --steps -1: expected an integer from 0 to 4294967295'],
      [['train', '--seed', '9'.repeat(20)], `insula: train: --seed ${'9'.repeat(20)}: expected an integer`],
      [['train', '--cotrain', '2'], 'insula: train: --cotrain 2: expected a number from 0 and below 1'],
      [
        ['train', '--questions', 'questions.jsonl', ...data],
        'insula: --questions: knowledge-insulation-robot-only is trained without questions; give --cotrain',
      ],
      [['train', '--window', '3', ...data], 'insula: --window: knowledge-insulation-robot-only sees no history'],
      [['systems', '--system-file', 'none.mts'], 'insula: --system-file none.mts: there is no such file'],
      [
        ['systems', '--system-file', 'empty.mts'],
        'insula: --system-file empty.mts: it exports no system; one has "name"',
      ],
      [['systems', '--system-file', 'twice.mts'], 'insula: system "pi0": another has this name'],
      [['train', '--out', '--json'], 'insula: train: --out needs a value; see insula train --help'],
      [
        ['train', '--task', 'place,juggle'],
        'insula: train: --task place,juggle: there is no "juggle"; there are place',
      ],
      [['train', '--precision', 'f8'], 'insula: train: --precision f8: there is no "f8"; there are f32, bf16'],
      [['train', '--variation', 'all'], 'insula: train: --variation all: there is no "all"; there are simple, rich'],
      [['train', '--task', 'press', ...data], 'insula: train: --task changes nothing together with --data'],
      [
        ['evaluate', '--checkpoint', 'none', '--record', 'made', '--film', './made'],
        'insula: --film ./made: --record names this folder too; choose another one for the pictures',
      ],
      [['evaluate', '--episodes', '0'], 'insula: evaluate: --episodes 0: expected an integer from 1 to 1000000'],
      [['act', '--checkpoint', 'missing.safetensors', '--json'], 'insula: missing.safetensors: cannot open it'],
    ];
    const alone: [string[], string, Settings?][] = [
      [['trian'], "insula: no command 'trian'; did you mean train?"],
      [
        ['train', '10'],
        'insula: npm kept --steps and --resume for itself: put a -- before the options, as in npm start -- OPTIONS',
        {
          environment: {
            npm_command: 'start',
            npm_lifecycle_event: 'start',
            npm_config_resume: 'true',
            npm_config_steps: 'true',
          },
        },
      ],
      [['inspect', '--step', '--adapter', 'none'], noAdapter, { environment: missing }],
    ];
    const before = await readdir(folder);
    const [train, together, ...apart] = await Promise.all([
      insula(['train', ...data, '--out', 'alone', '--adapter', 'none'], { environment: missing }),
      insulaEach(inOne.map(([args]) => args)),
      ...alone.map(([args, , settings]) => insula(args, settings)),
    ]);
    const cases = [...inOne, ...alone];
    // The adapter is opened after the data are read, and a note reports the data.
    expect(train.errors.filter((line) => line.startsWith('insula: '))).toEqual([train.errors.at(-1)]);
    expect(train).toMatchObject({ status: 1, output: '' });
    expect(train.errors.at(-1)).toContain(noAdapter);
    [...together, ...apart].forEach(({ status, output, errors }, i) => {
      const [args, words] = cases[i];
      expect(errors, args.join(' ')).toEqual([expect.stringContaining(words)]);
      expect({ status, output }).toEqual({ status: 1, output: '' });
    });
    expect(await readdir(folder)).toEqual(before);
  });

  test('a result longer than a pipe holds reaches a slow reader whole', async () => {
    const words = ['inspect', '--step', '--json', '--preset', 'small', '--depth', '24', '--adapter', 'null'];
    const child = spawn(process.execPath, [launcher, program, ...words], { stdio: ['ignore', 'pipe', 'ignore'] });
    const closed = new Promise((resolve) => child.on('close', resolve));
    // From the first bytes on the reader waits for longer than the program would take to end.
    await new Promise((resolve) => child.stdout.once('readable', resolve));
    await new Promise((resolve) => setTimeout(resolve, 500));
    let output = '';
    for await (const piece of child.stdout.setEncoding('utf8')) output += piece;
    expect(await closed).toBe(0);
    expect(JSON.parse(output).operations.length).toBeGreaterThan(100);
    // More than the socket that node takes for a pipe and the reader's own buffer hold together.
    expect(output.length).toBeGreaterThan(2 ** 19);
  });

  test('help of all commands and of one, the adapters as JSON', async () => {
    const [[own, useless, family, bench, named], help, none, devices] = await Promise.all([
      insulaEach([
        ['train', '--help'],
        ['train', '--robot', 'so100', '-h'],
        ['tokenize', '--help'],
        ['bench', '--help'],
        ['help', 'bench', 'kernels'],
      ]),
      insula(['--help']),
      insula([]),
      insula(['devices', '--json']),
    ]);
    expect(help.output).toMatch(/^insula COMMAND \[options\]\n[\s\S]*\n {2}evaluate /);
    expect(own.output).toMatch(/^insula train \[options\]: [\s\S]*\n {2}--resume [\s\S]*\n {2}--json /);
    expect(useless.output).toBe(own.output);
    expect(family.output).toMatch(/^insula tokenize COMMAND \[options\]\n\n( {2}tokenize .*\n){4}$/);
    expect(bench.output).toMatch(/^insula bench \[options\]: [\s\S]*\n {2}--tune [\s\S]*\n {2}--json /);
    expect(bench.output).toMatch(/\n\ninsula bench COMMAND \[options\]\n\n( {2}bench .*\n){8}$/);
    for (const name of ['attention', 'kernels', 'step', 'stories', 'data', 'roofline', 'first-day'])
      expect(bench.output).toContain(`\n  bench ${name} `);
    expect(named.output).toMatch(/^insula bench kernels \[names of operations\] \[options\]: /);
    expect(named.output).toContain(
      "\n\nNames of operations restrict the measurement to them: 'insula bench kernels gatedMlp",
    );
    expect(none.output).toBe(help.output);
    const all = [help, own, useless, family, bench, named, none, devices];
    expect(all.map(({ status }) => status)).toEqual([0, 0, 0, 0, 0, 0, 2, 0]);
    expect(devices.output.trim().split('\n')).toHaveLength(1);
    expect(JSON.parse(devices.output).adapters).toContainEqual(
      expect.objectContaining({ opens: true, isDefault: true }),
    );
    expect(all.flatMap(({ errors }) => errors)).toEqual([]);
  });
});

test('the command to type again is the one that was typed', () => {
  const typed = (npm_lifecycle_event?: string) =>
    commandLine(['train', '--out', 'my run', '--resume'], { npm_lifecycle_event });
  expect(typed('start')).toBe("npm start -- --out 'my run' --resume");
  expect(typed('insula')).toBe("npm run insula -- train --out 'my run' --resume");
  expect(typed('npx')).toBe("npx insula train --out 'my run' --resume");
  expect(typed()).toMatch(/^node \S*cli\/setup\/insula\.mjs train --out 'my run' --resume$/);
  const kept = { npm_command: 'start', npm_lifecycle_event: 'start', npm_config_resume: 'true', npm_config_steps: '4' };
  const refused = () => refuseOptionsOfNpm(['train'], ['steps', 'resume', 'batch'], kept);
  expect(refused).toThrow('as in npm start -- --steps 4 --resume');
  expect(commandLine(['train'], { npm_lifecycle_event: 'start' })).toBe('npm start');
});

test('steps per second, or seconds per step, once they are known', () => {
  const lines: string[] = [];
  let [narrow, narrower] = ['', ''];
  class Recorded extends Progress {
    override count(what: string, done: number, total: number, details: readonly string[]) {
      lines.push(`${what} ${done}/${total}${details[0]}`);
      const line = (columns: number) => progressLine(columns, done / total, `${done}/${total}`, { what, details });
      [narrow, narrower] = [line(60), line(40)];
    }
  }
  const { objectives } = demoReport();
  const now = vi.spyOn(performance, 'now');
  for (const seconds of [0.1, 4]) {
    const progress = new Recorded();
    for (const step of [1, 2, 3]) {
      now.mockReturnValue(1000 * seconds * step);
      progress.step(step, 13, { flow: 1 }, objectives);
    }
  }
  const [afterShort, progress] = [narrow, new Recorded()];
  for (const step of [1, 2, 3]) {
    now.mockReturnValue(1000 * step);
    progress.step(1234, 4000, { token: 1.932, flow: 0.453 }, objectives);
  }
  const afterThousand = narrow;
  now.mockReturnValue(4000);
  progress.step(12345, 40000, { token: 1.932, flow: 0.453 }, objectives);
  now.mockRestore();
  expect(lines[0]).toBe('train: step 1/13 | flow loss 1.000');
  expect(lines[2]).toBe('train: step 3/13 | 10.0 steps per second | flow loss 1.000 | 1 s left');
  expect(lines[5]).toBe('train: step 3/13 | 4.0 seconds per step | flow loss 1.000 | 40 s left');
  expect(afterShort).toBe('train: step ███░░░░░░░░░░ 3/13 | flow loss 1.000 | 40 s left');
  expect(afterThousand).toBe('train: step 1234/4000 | token 1.932, flow 0.453 | 46:06 left');
  expect(narrow).toBe('train: step 12345/40000 | token 1.932, flow 0.453 | 7:40:55');
  expect(narrower).toBe('train: step █████░░░░░░░░░░░ 12345/40000');
});

test('losses beside those of their baselines, for the objectives that have one', () => {
  const objectives = [
    ...demoReport().objectives,
    { name: 'contrast', title: 'contrastive loss', meaning: '', baseline: null },
  ];
  const lines: string[] = [];
  class Recorded extends Progress {
    override note(line: string) {
      lines.push(line);
    }
  }
  const losses = { token: 2, flow: 0.5, contrast: 0.25 };
  new Recorded().heldOut(7, losses, { token: 4, flow: 0.4 }, objectives);
  new Recorded().heldOut(8, { contrast: 0.25 }, {}, objectives);
  expect(lines).toEqual([
    'held out after step 7: token loss 2.000, flow loss 0.500, contrastive loss 0.250 (0.50 × unigram predictor, 1.25 × best constant velocity (worse))',
    'held out after step 8: contrastive loss 0.250',
  ]);
  const summary = {
    ...{ finished: true, step: 7, resumedAt: 0, checkpoint: 'c', report: null, adapter: 'a', seconds: { train: 1 } },
    ...{ heldOut: losses, ratios: ratiosToBaselines(losses, { token: 4, flow: 0.4 }) },
    ...{ skipped: [], openLoop: null, swapped: null, kept: null, answers: null, closedLoop: null },
    settings: runSettings(),
  };
  const heldOutLine = (own: TrainSummary) => trainLines(own, objectives, '')[1];
  expect(heldOutLine(summary)).toBe(
    'held out: token loss 2.000, flow loss 0.500, contrastive loss 0.250: token loss 0.50 × that of the unigram predictor, flow loss 1.25 × that of the best constant velocity (worse)',
  );
  expect(heldOutLine({ ...summary, heldOut: { contrast: 0.25 }, ratios: {} })).toBe('held out: contrastive loss 0.250');
  expect(trainLines({ ...summary, skipped: [3, 4] }, objectives, '')[1]).toBe(
    'training steps skipped because a loss or a gradient was not finite: 2 of steps 3 to 4',
  );
  expect(heldOutLine({ ...summary, settings: runSettings({ ema: 0.9 }) })).toContain('moving average of the weights');
});

describe('insula train', () => {
  const train = ['train', '--data', 'data', '--dataset', 'made', '--out', 'run', '--json'];
  const inRun = (name: string) => join(folder, 'run', name);

  test.skipIf(process.platform === 'win32')(
    'interrupted it saves, resumed it finishes, and its policy acts',
    async () => {
      let measured = false;
      const interrupted = await insula([...train, '--system', 'pi0', '--batch', '2', '--steps', '100000'], {
        onErrors(text, child) {
          if (measured || !text.includes('held out after step 0')) return;
          measured = true;
          child.kill('SIGINT');
        },
      });
      expect(interrupted.status, interrupted.errors.join('\n')).toBe(130);
      expect(interrupted.errors.at(-1)).toMatch(/^saved step \d+ to run\/checkpoint\.safetensors$/);
      const summary = JSON.parse(interrupted.output);
      expect(summary).toMatchObject({ finished: false, report: null });
      const checkpoint = await openCheckpoint(inRun('checkpoint.safetensors'));
      expect(checkpoint.progress.step).toBe(summary.step);
      await checkpoint.close();

      const finished = await insula([...train, '--resume', '--steps', String(summary.step + 1)]);
      expect(finished.status, finished.errors.join('\n')).toBe(0);
      expect(JSON.parse(finished.output)).toEqual(JSON.parse(await readFile(inRun('summary.json'), 'utf8')));
      expect(JSON.parse(finished.output)).toMatchObject({ finished: true, step: summary.step + 1 });
      expect(JSON.parse(finished.output).settings).toMatchObject({ system: 'pi0', batch: 2 });
      const report = await readFile(inRun('report.html'), 'utf8');
      expect(report).toContain('pi0 on made');
      expect(report).toContain(`<code>--steps ${summary.step + 1} --batch 2 `);

      const acted = await insula(['act', '--checkpoint', 'run/checkpoint.safetensors', '--json']);
      expect(acted.status, acted.errors.join('\n')).toBe(0);
      const { predicted, demonstrated, latency } = JSON.parse(acted.output);
      expect(demonstrated).toEqual([0, 1, 2, 3].map((step) => [step, step + 1, step + 2]));
      expect(predicted.flat().filter(Number.isFinite)).toHaveLength(12);
      expect(latency.map(({ part }: { part: string }) => part).slice(0, 3)).toEqual([
        'images and language',
        'prefix',
        'Euler step 1',
      ]);
    },
  );
});

test('actions of many dimensions are shown dimension by dimension', () => {
  const demonstrated = [Array.from({ length: 20 }, (_, d) => d), null];
  const predicted = [Array.from({ length: 20 }, (_, d) => d + 0.5), Array(20).fill(0)];
  const result = {
    episode: 'e',
    step: 0,
    instruction: null,
    said: null,
    answer: null,
    demonstrated,
    predicted,
    latency: [],
    adapter: 'a',
  };
  const lines = actLines({ ...result, names: null });
  expect(lines).toHaveLength(23);
  expect(lines[1]).toMatch(/^ {2}dimension .*mean difference$/);
  expect(lines[21].split(/\s+/)).toEqual(['', '19', '19.500', '19.500', '19.000', '19.000', '0.500']);
  expect(actLines({ ...result, names: Array(20).fill('joint') })[2]).toMatch(/^ {2}joint /);
});
