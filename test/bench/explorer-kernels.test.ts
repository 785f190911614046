import { describe, expect, test } from 'vitest';
import { compile, packEdit, sentenceOf, unpackEdit } from '../../bench/explorer/kernels/edit.ts';
import { markupOf, mathematicsOf, namesIn } from '../../bench/explorer/kernels/mathematics.ts';
import { checkOp, kernelNames, opsOf, timeOp } from '../../bench/explorer/kernels/trial.ts';
import { operandsOf } from '../../bench/kernels/cases.ts';
import { opOf } from '../../bench/kernels/problem.ts';
import { everyProblem } from '../../bench/verify/ops.ts';
import { backward, type Kernel, loadedKernels, openDevice, withoutTape } from '../../engine/index.ts';
import { testDevice } from '../support/devices.ts';

const shipped = loadedKernels.get('rms-norm')!;
const { signal } = new AbortController();

describe('an edit in a link', () => {
  test.each(['rms-norm', 'attention'])('of %s comes back, and is short where little was changed', (name) => {
    const { source } = loadedKernels.get(name)!;
    const edited = source.replace('arXiv', 'arXiv \u2713');
    expect(unpackEdit(source, packEdit(source, edited))).toBe(edited);
    expect(packEdit(source, edited).length).toBeLessThan(40);
    for (const other of ['', `${source}\u{1f600}`, source.slice(1), edited.toUpperCase()])
      expect(unpackEdit(source, packEdit(source, other))).toBe(other);
  });

  test('of another version, or damaged, is told', () => {
    const packed = packEdit(shipped.source, 'changed');
    expect(() => unpackEdit(`${shipped.source} `, packed)).toThrow('another version of this kernel');
    expect(() => unpackEdit(shipped.source, `${packed.slice(0, -4)}!!!!`)).toThrow('damaged');
  });
});

describe('kernel pages', () => {
  test('formulas render, and their names are names of the file', () => {
    const withFormulas = kernelNames.filter((name) => mathematicsOf(name));
    expect(withFormulas.length).toBeGreaterThan(20);
    for (const name of withFormulas) {
      const own = mathematicsOf(name)!;
      const { source } = loadedKernels.get(name)!;
      const code = name.includes('.') ? loadedKernels.get(name.split('.')[0])!.source : source;
      const missing = namesIn(own).filter((used) => !new RegExp(`\\b${used}_?\\b`).test(code));
      expect(missing, name).toEqual([]);
      for (const formula of [...own.forward, ...own.backward]) expect(markupOf(formula)).toContain('<math');
    }
  });

  test('each op runs its kernel file, but for those of another kind of adapter', async () => {
    const device = await openDevice({ adapter: 'null' });
    const ops = new Set(kernelNames.flatMap(opsOf));
    const problems = everyProblem().filter((problem) => ops.delete(opOf(problem)) || opOf(problem) === 'rmsNorm');
    expect([...ops]).toEqual(['AdamW']);
    for (const problem of problems) {
      using operands = operandsOf(device, problem);
      const { gradient } = operands;
      if (gradient) device.step(() => backward(operands.forward()!, { gradient }));
      else device.step(() => withoutTape(device, () => void operands.forward()));
    }
    const ran = new Set(device.pipelines.names().map((name) => name.split(' ')[0]));
    const idle = kernelNames.filter(
      (name) => opsOf(name).length > 0 && !opsOf(name).includes('AdamW') && !ran.has(name),
    );
    expect(idle).toEqual(['matmul.software', 'attention.software']);
    device.close();
  });
});

describe('an edit of RMSNorm', () => {
  const edited = async (from: string, to: string) => {
    expect(shipped.source).toContain(from);
    return compile(await testDevice('normal'), shipped.name, shipped.source.replace(from, to));
  };

  test('that does not compile is told by its line, the compiler’s reason or the parser’s', async () => {
    const faults = async (from: string, to: string) => {
      const found = await edited(from, to);
      return 'name' in found ? [] : found.map(sentenceOf);
    };
    expect(await faults('let value = unpack(x[at]);', 'let value = unpack(z[at]);')).toEqual([
      "Line 107, column 26: unresolved value 'z'",
    ]);
    expect(await faults('// @or plain  fn gainOf', '// @or plain  fn gainof')).toEqual([
      expect.stringMatching(/^Line \d+: .*'plain' does not declare gainOf$/),
    ]);
  });

  test('with a wrong factor fails for that gradient alone, and is timed beside the shipped kernel', async () => {
    const device = await testDevice('normal');
    const kernel = (await edited('dw += gradient * value * r;', 'dw += 1.001 * gradient * value * r;')) as Kernel;
    const checked = await checkOp(device, 'rms-norm', 'rmsNorm', kernel, signal);
    expect(checked.map(({ tensor, passed, sizes }) => [tensor, passed, sizes])).toEqual([
      ['output', true, 7],
      ['gradient of x', true, 7],
      ['gradient of weight', false, 7],
    ]);
    const { timings } = await timeOp(device, 'rms-norm', 'rmsNorm', kernel, signal);
    expect(timings.map(({ direction, edited, ratio }) => [direction, edited, ratio !== null])).toEqual([
      ['forward', false, false],
      ['forward', true, true],
      ['backward', false, false],
      ['backward', true, true],
    ]);
    const restored = await checkOp(device, 'rms-norm', 'rmsNorm', null, signal);
    expect(restored.every(({ passed }) => passed)).toBe(true);
  });

  test('that lacks what its op uses is told in one sentence', async () => {
    const device = await testDevice('normal');
    const kernel = (await edited('fn backward(', 'fn reverse(')) as Kernel;
    await expect(checkOp(device, 'rms-norm', 'rmsNorm', kernel, signal)).rejects.toThrow("no entry point 'backward'");
    await expect(checkOp(device, 'matmul.matrix', 'rmsNorm', null, signal)).rejects.toThrow('in another kernel file');
  });
});
