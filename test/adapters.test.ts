import { describe, expect, test } from 'vitest';
import { dawnReason } from '../engine/adapters/list-adapters.mjs';
import { type AdapterReport, installAdvice, listAdapters } from '../engine/adapters.ts';

describe('adapters', () => {
  test("Dawn's words on why a backend gives no adapter", () => {
    const messages =
      'Warning: maxA artificially reduced from 2 to 1.\nWarning: eglInitialize failed\n    at CheckEGL\n';
    expect(dawnReason(messages)).toBe('eglInitialize failed');
    expect(dawnReason('')).toBeUndefined();
  });

  test('every adapter is listed once with what it can do, the others with a reason', async () => {
    const reports: AdapterReport[] = await listAdapters();
    const open = reports.filter((report) => report.opens);
    expect(open.filter((report) => report.isDefault).length).toBeGreaterThan(0);
    expect(new Set(open.map(({ backend, name }) => `${backend} ${name}`)).size).toBe(open.length);
    for (const report of open) {
      expect(report.limits.maxComputeInvocationsPerWorkgroup).toBeGreaterThanOrEqual(256);
      expect(report.limits.maxStorageBufferBindingSize).toBeGreaterThanOrEqual(2 ** 27);
      expect(report.features).toContain('core-features-and-limits');
    }
    for (const report of reports) if (!report.opens) expect(report.reason).toMatch(/\S/);
    expect(installAdvice()).toMatch(/\S/);
  });
});
