import { spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { withoutNotices } from '../cli/setup/notices.mjs';
import { nodeOptions, oncePerPress } from '../cli/setup/program.mjs';
import { hasScript, withoutScript } from './faults/processes.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const launcher = join(root, 'cli/setup/launch.mjs');
const notice = (what: string) =>
  `Warning: maxDynamic${what}BuffersPerPipelineLayout artificially reduced from 1000000 to 16 to fit dynamic offset allocation limit.\n`;
const notices = notice('Uniform') + notice('Storage');

describe("Dawn's notices", () => {
  /** The output for text that comes in pieces, as a whole and right after each piece. */
  function filtered(pieces: readonly string[]): { whole: string; pieces: string[] } {
    let piece = '';
    const { write, end } = withoutNotices((text) => {
      piece += text;
    });
    const passed = pieces.map((text) => {
      piece = '';
      write(text);
      return piece;
    });
    piece = '';
    end();
    return { whole: [...passed, piece].join(''), pieces: passed };
  }

  test('are taken out and nothing else is, wherever the text is cut', () => {
    const kept = [
      'first\n',
      'Warning: maxDynamicBar\n',
      '\n',
      `say: ${notice('Uniform')}`,
      'Warning: no driver\n',
      'last',
    ];
    const text = notices + kept.slice(0, 3).join(notice('Storage')) + notices + kept.slice(3).join('');
    const cuts = fc.array(fc.nat(text.length)).map((places) => [0, ...places.sort((a, b) => a - b), text.length]);
    fc.assert(
      fc.property(cuts, (places) => {
        const pieces = places.slice(1).map((end, i) => text.slice(places[i], end));
        expect(filtered(pieces).whole).toBe(kept.join(''));
      }),
    );
  });

  test('hold nothing back that cannot become one', () => {
    const { pieces, whole } = filtered(['step 1', ' of 2\nWarn', 'ed: x', 'Warning: maxDynamic', '\nWarning: maxD']);
    expect(pieces).toEqual(['step 1', ' of 2\n', 'Warned: x', 'Warning: maxDynamic', '\n']);
    expect(whole).toBe('step 1 of 2\nWarned: xWarning: maxDynamic\nWarning: maxD');
  });
});

describe('the launcher', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'insula-launcher-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('TypeScript runs through tsx, the test runner as itself, whatever the working directory', () => {
    const options = nodeOptions('cli/main.ts', ['train', '--steps', '3']);
    expect(options.slice(-4)).toEqual([join(root, 'cli/main.ts'), 'train', '--steps', '3']);
    expect(options.join(' ')).toMatch(/--import file:\S*tsx/);
    expect(nodeOptions('cli/main.js', []).join(' ')).not.toContain('tsx');
    expect(nodeOptions('vitest', ['run']).slice(-2)).toEqual([join(root, 'node_modules/vitest/vitest.mjs'), 'run']);
  });

  test('a key press that arrives twice is passed on once, the next press again', () => {
    let time = 0;
    let passed = 0;
    const press = oncePerPress(
      () => {
        passed += 1;
      },
      () => time,
    );
    const counts = [0, 5, 30, 2000, 2010].map((moment) => {
      time = moment;
      press();
      return passed;
    });
    expect(counts).toEqual([1, 1, 1, 2, 2]);
  });

  test.skipIf(process.platform === 'win32')('under npm, the program ends with the shell that npm started', async () => {
    const program = join(folder, 'waiting.ts');
    writeFileSync(
      program,
      `process.on('SIGTERM', () => {
        console.log('told');
        process.exit(0);
      });
      setTimeout(() => {}, 60_000);
      console.log('ready');`,
    );
    const command = `"${process.execPath}" "${launcher}" "${program}"; true`;
    const shell = spawn('sh', ['-c', command], {
      env: { ...process.env, npm_lifecycle_event: 'start' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    shell.stdout.on('data', (data) => {
      output += data;
      if (output === 'ready\n') shell.kill('SIGTERM');
    });
    await new Promise((resolve) => shell.on('close', resolve));
    expect(output).toBe('ready\ntold\n');
  });

  test.skipIf(process.platform === 'win32')(
    'a signal reaches the program, and its exit status comes back',
    async () => {
      const program = join(folder, 'program.ts');
      const source = `const status: number = 7;
      process.on('SIGINT', () => process.exit(status));
      setTimeout(() => {}, 60_000);
      console.log(process.argv[2], process.cwd());`;
      writeFileSync(program, source);
      const words = [launcher, program, 'ready'];
      const child = spawn(process.execPath, words, { cwd: tmpdir(), stdio: ['ignore', 'pipe', 'inherit'] });
      let output = '';
      child.stdout.on('data', (data) => {
        output += data;
        child.kill('SIGINT');
      });
      const status = await new Promise((resolve) => child.on('close', resolve));
      expect(output).toBe(`ready ${realpathSync(tmpdir())}\n`);
      expect(status).toBe(7);
    },
  );

  test('what native code writes to standard error arrives without notices, to the last byte, after the program ended', () => {
    const program = join(folder, 'native.mjs');
    writeFileSync(
      program,
      `import { writeSync } from 'node:fs';
      writeSync(2, ${JSON.stringify(notices)});
      writeSync(2, Buffer.from([0xff, 0xc3, 0x28, 10]));
      console.error('x'.repeat(200_000));
      writeSync(2, 'Warning: maxDyn');
      process.exit(3);`,
    );
    const { status, stderr } = spawnSync(process.execPath, [launcher, program]);
    const expected = [Buffer.from([0xff, 0xc3, 0x28, 10]), Buffer.from(`${'x'.repeat(200_000)}\nWarning: maxDyn`)];
    expect(stderr.equals(Buffer.concat(expected))).toBe(true);
    expect(status).toBe(3);
  });

  test('the program ends although a process that it left behind holds standard error open', () => {
    const program = join(folder, 'leaving.mjs');
    writeFileSync(
      program,
      `import { spawn } from 'node:child_process';
      const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 60_000)'], { stdio: ['ignore', 'ignore', 2], detached: true });
      child.unref();
      console.log(child.pid);`,
    );
    // spawnSync reads from a pipe until every holder of it has closed it: standard error goes to a file.
    const errors = openSync(join(folder, 'errors.txt'), 'w');
    const { status, stdout } = spawnSync(process.execPath, [launcher, program], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', errors],
    });
    closeSync(errors);
    process.kill(Number(stdout)); // throws if it has ended, and then the launcher may have waited for it
    expect(status).toBe(0);
  });

  test.skipIf(!hasScript)(`a program draws on the terminal of standard error${withoutScript}`, () => {
    const program = join(folder, 'drawing.mjs');
    writeFileSync(
      program,
      `import { writeSync } from 'node:fs';
      writeSync(2, ${JSON.stringify(notices)});
      writeSync(2, 'native\\n');
      const { isTTY, columns } = process.stderr;
      setTimeout(() => console.error([isTTY, columns, process.stderr.hasColors()].join(' ')), 200);`,
    );
    const command = `stty cols 61; "${process.execPath}" "${launcher}" "${program}"`;
    const { stdout } = spawnSync('script', ['-qec', command, '/dev/null'], {
      encoding: 'utf8',
      env: {
        ...process.env,
        TERM: 'xterm',
        CI: undefined,
        NO_COLOR: undefined,
        NODE_DISABLE_COLORS: undefined,
        FORCE_COLOR: undefined,
      },
    });
    expect(stdout.replaceAll('\r', '')).toBe('native\ntrue 61 true\n');
  });
});
