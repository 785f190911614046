import { defineConfig } from 'vitest/config';

// One process, one device: opening an adapter and compiling pipelines costs more than most tests.
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/support/mappings.ts'],
    pool: 'forks',
    maxWorkers: 1,
    isolate: false,
    // Against hangs only: a machine may have ten times as much to do as it has cores.
    testTimeout: 600_000,
    hookTimeout: 600_000,
  },
});
