import { describe, expect, test } from 'vitest';
import type { PreviousChunks } from '../../model/architecture/objectives/index.ts';
import { type ExecutionOptions, Executor, scheduleOf } from '../../model/policy/execution.ts';

const HORIZON = 4;

/** Executes chunks of two episodes, in which action i of call n (from 1) is [100 n + i, -(100 n + i)], and another sign in episode 1. */
async function executed(options: ExecutionOptions, steps: number) {
  const calls: { at: number; observations: readonly number[]; previous: PreviousChunks | undefined }[] = [];
  const actions: number[] = [];
  const policy = async (observations: readonly number[], previous: PreviousChunks | undefined) => {
    calls.push({ at: actions.length, observations, previous });
    const chunk = (sign: number) =>
      Float32Array.from({ length: 2 * HORIZON }, (_, i) => {
        return sign * (i % 2 === 0 ? 1 : -1) * (100 * calls.length + Math.floor(i / 2));
      });
    return [chunk(1), chunk(-1)];
  };
  const executor = new Executor(policy, 2, options);
  for (let step = 0; step < steps; step++) {
    const [[first, second], other] = await executor.next(() => [step, -step]);
    expect([second, ...other]).toEqual([-first, -first, first]);
    actions.push(first);
  }
  for (const { at, observations } of calls) expect(observations).toEqual([at, -at]);
  return { actions, times: calls.map(({ at }) => at), previous: calls.map((call) => call.previous) };
}

const inPairs = { executeSteps: 2, delay: 1 } as const;

test.each<[ExecutionOptions, number[], number[]]>([
  [{ execution: 'open-loop' }, [100, 101, 102, 103, 200, 201], [0, 4]],
  [{ executeSteps: 2 }, [100, 101, 200, 201, 300, 301], [0, 2, 4]],
  [inPairs, [100, 101, 102, 201, 202, 301], [0, 2, 4]],
  [{ execution: 'real-time-chunking', ...inPairs }, [100, 101, 102, 201, 202, 301], [0, 2, 4]],
  [{ execution: 'real-time-chunking', executeSteps: 3, delay: 0 }, [100, 101, 102, 200, 201, 202], [0, 3]],
])('%o carries out the right action of the right chunk', async (options, actions, times) => {
  expect(await executed(options, 6)).toMatchObject({ actions, times });
});

test('real-time chunking gives the policy what is left of its chunks', async () => {
  const { previous } = await executed({ execution: 'real-time-chunking', ...inPairs }, 5);
  const left = (call: number) => [100 * call + 2, -100 * call - 2, 100 * call + 3, -100 * call - 3];
  const given = (call: number) => ({
    chunks: [Float32Array.from(left(call)), Float32Array.from(left(call), (own) => -own)],
    delay: 1,
  });
  expect(previous).toEqual([undefined, given(1), given(2)]);
  const { previous: none } = await executed(inPairs, 5);
  expect(none).toEqual([undefined, undefined, undefined]);
});

test('a robot gets actions of the old chunk while a delay lasts, and a failed call is made again', async () => {
  const options = { execution: 'real-time-chunking', executeSteps: 2, delay: 2 } as const;
  let finish = (_: Float32Array[] | Error) => {};
  let called = 0;
  const policy = () =>
    new Promise<Float32Array[]>((resolve, reject) => {
      called += 1;
      finish = (own) => (own instanceof Error ? reject(own) : resolve(own));
    });
  const executor = new Executor(policy, 1, options, true);
  const chunk = (call: number) => [Float32Array.from({ length: HORIZON }, (_, i) => 100 * call + i)];
  const next = async () => (await executor.next(() => [0]))[0][0];
  const begun = () => new Promise(setImmediate);
  const first = next();
  await begun();
  finish(chunk(1));
  expect([await first, await next()]).toEqual([100, 101]);
  // The second call is under way for as long as the delay.
  expect([await next(), await next(), called]).toEqual([102, 103, 2]);
  const late = next();
  finish(chunk(2));
  expect([await late, await next(), called]).toEqual([202, 203, 3]);
  finish(new Error('lost'));
  await expect(next()).rejects.toThrow('lost');
  const again = next();
  await begun();
  finish(chunk(4));
  expect([await again, called]).toEqual([400, 4]);
});

test('temporal ensembling is the weighted mean of all predictions, the oldest of which weighs most', async () => {
  const { actions, times } = await executed({ execution: 'temporal-ensembling' }, 6);
  expect(times).toEqual([0, 1, 2, 3, 4, 5]);
  // At step t call n, which was made at step n - 1, predicts 100 n + t - n + 1; a chunk lasts for four steps.
  const expected = actions.map((_, t) => {
    const calls = Array.from({ length: Math.min(t + 1, HORIZON) }, (_, i) => Math.max(1, t + 2 - HORIZON) + i);
    const weights = calls.map((_, i) => Math.exp(-0.01 * i));
    const sum = calls.reduce((total, n, i) => total + weights[i] * (100 * n + t - n + 1), 0);
    return Math.fround(sum / weights.reduce((a, b) => a + b));
  });
  actions.forEach((own, t) => {
    expect(own).toBeCloseTo(expected[t], 4);
  });
});

describe('a schedule', () => {
  test.each<[ExecutionOptions, string]>([
    [{ executeSteps: 5 }, '--execute-steps 5: a chunk of this policy has 4 actions'],
    [{ executeSteps: 0 }, '--execute-steps 0: it is no whole number from 1'],
    [{ executeSteps: 2, delay: -1 }, '--delay -1: it is no whole number from 0'],
    [{ delay: 3 }, '--delay 3: a chunk of this policy has 4 actions, so that the delay is at most 2'],
    [
      { executeSteps: 1, delay: 2 },
      '--delay 2: a chunk of this policy has 4 actions, so that --execute-steps is from 2',
    ],
    [{ executeSteps: 3, delay: 2 }, '--execute-steps is from 2 to 2 with this delay; it is 3'],
  ])('%o is refused', (options, reason) => {
    expect(() => scheduleOf(options, HORIZON)).toThrow(reason);
    expect(() => scheduleOf({ ...options, execution: 'real-time-chunking' }, HORIZON)).toThrow(reason);
    expect(scheduleOf({ ...options, execution: 'open-loop' }, HORIZON)).toEqual({ every: HORIZON, delay: 0 });
  });

  test('fits itself to short chunks', () => {
    const schedules = [1, 4, 8].map((horizon) => scheduleOf({}, horizon));
    expect(schedules.map(({ every }) => every)).toEqual([1, 4, 5]);
    expect(scheduleOf({ delay: 1 }, HORIZON)).toEqual({ every: 3, delay: 1 });
    expect(() => scheduleOf({ delay: 1 }, 1)).toThrow(
      'a chunk of this policy has 1 action, so that the delay is at most 0',
    );
  });

  test('is checked against the chunks, which must be whole', async () => {
    const executing = (chunk: Float32Array | undefined) =>
      new Executor(async () => (chunk ? [chunk] : []), 2, { executeSteps: 5 }).next(() => [0]);
    await expect(executing(new Float32Array(8))).rejects.toThrow(
      '--execute-steps 5: a chunk of this policy has 4 actions',
    );
    await expect(executing(new Float32Array(9))).rejects.toThrow('episode 0 has 9 numbers; expected [horizon, 2]');
    await expect(executing(undefined)).rejects.toThrow('episode 0 has 0 numbers');
  });
});
