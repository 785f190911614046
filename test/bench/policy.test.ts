import { expect, test } from 'vitest';
import { runPolicyBench } from '../../bench/step/policy.ts';
import { benchPolicy, policyLines } from '../../cli/bench-policy.ts';
import { testDevice } from '../support/devices.ts';
import { runCommand } from '../support/run-command.ts';

test('insula bench policy times the parts of acting, and counts tokens', async () => {
  const sizes = { preset: 'nano', prompt: 4, horizon: 2, batch: 2, steps: 3 };
  const systems = ['pi0', 'openvla-oft', 'pi0-fast', 'naive-tokens', 'openvla-s', 'pi05-stage-1'];
  const device = await testDevice('normal');
  const result = await runPolicyBench(device, { systems, ...sizes }, { rounds: 3, seconds: 60 });
  const partsOf = (i: number) => Object.fromEntries(result.rows[i].parts.map(({ name, times }) => [name, times]));
  const given = { 'images and language': 1, prefix: 1 };
  const flow = { ...given, 'Euler step': 3 };
  expect([0, 1, 3].map(partsOf)).toEqual([flow, given, flow]);
  for (const row of [2, 4]) {
    const { tokens } = result.rows[row];
    // The prefix gives the logits of the first token.
    expect(partsOf(row)).toEqual({ ...given, token: tokens! - 1 });
  }
  expect(result.rows[5].parts.find(({ name }) => name === 'token')?.times).toBe(result.rows[5].tokens! - 1);
  // A number has a sign, a digit, a point and four decimals, and one character between it and the next.
  expect(result.rows[4].tokens).toBe(2 * 7 * 8 - 1);
  for (const { time, parts } of result.rows)
    for (const { median, lowerQuartile, upperQuartile, rounds } of [time, ...parts]) {
      expect(rounds).toBeGreaterThanOrEqual(3);
      expect(lowerQuartile).toBeLessThanOrEqual(median);
      expect(upperQuartile).toBeGreaterThanOrEqual(median);
    }
  const lines = policyLines(result).join('\n');
  expect(lines).toMatch(/^ {2}pi0-fast .* \d+ x [\d.]+ .* \d+$/m);
  await expect(runCommand(benchPolicy, { system: ['openvla', 'pi0-fast'], steps: 5 })).rejects.toThrow(
    'bench policy: --steps 5: openvla and pi0-fast have no flow and no diffusion; leave it out',
  );
  await expect(runCommand(benchPolicy, { adapter: 'null', compare: 'package.json' })).rejects.toThrow(
    `package.json: this is not a run that 'insula bench policy --out' saved: "format": missing`,
  );
});
